// A QEMU whose guest has one disk behind an export of an agent that is dead: what it answers, and what
// it was told.

import type { Monitor } from "./earlier-guest.ts";

export class ExportedQemu implements Monitor {
  /** What changes something, in its order. */
  readonly told: string[] = [];
  status: string;
  /** The next one of these is refused. */
  refuses: string | null = null;
  /** What is under way with the disk before it answers. */
  whenTold: (command: string) => Promise<void> = () => Promise.resolve();
  readonly #exported: string;
  readonly #imagePath: string;
  #isSwapped = false;
  #isThere = true;

  constructor(
    status: string,
    { socketPath, imagePath }: Record<"socketPath" | "imagePath", string>,
  ) {
    this.status = status;
    this.#exported = `nbd+unix:///disk0?socket=${socketPath}`;
    this.#imagePath = imagePath;
  }

  get running(): boolean {
    return this.status === "running";
  }

  async answer(command: string): ReturnType<Monitor["answer"]> {
    await this.whenTold(command);
    if (!command.startsWith("query-") && command !== "qmp_capabilities") this.told.push(command);
    if (command === this.refuses) {
      this.refuses = null;
      return { fails: `no ${command} today` };
    }
    const event = { stop: this.running ? "STOP" : null, cont: "RESUME" }[command] ?? null;
    return { return: this.#carryOut(command), event };
  }

  #carryOut(command: string): unknown {
    switch (command) {
      case "query-status":
        return { status: this.status, running: this.running };
      case "query-migrate":
        return { status: "failed" };
      case "query-named-block-nodes":
        return this.#nodes();
      case "stop":
        if (this.running) this.status = "paused";
        return {};
      case "cont":
        this.status = "running";
        return {};
      case "blockdev-reopen":
        this.#isSwapped = true;
        return {};
      case "blockdev-del":
        this.#isThere = false;
        return {};
      default:
        return {};
    }
  }

  #nodes(): unknown {
    const node = (name: string, drv: string, file: string): unknown => {
      return { "node-name": name, drv, file, ro: false, image: { "virtual-size": 2 ** 20 } };
    };
    const above = this.#isSwapped ? this.#imagePath : this.#exported;
    const nbd = this.#isThere ? [node("disk0-nbd", "nbd", this.#exported)] : [];
    return [node("disk0", "raw", above), node("disk0-file", "file", this.#imagePath), ...nbd];
  }
}
