import { mkdtemp, open, rm, stat, type FileHandle } from "node:fs/promises";
import { constants, openSync } from "node:fs";
import { Socket } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { GREETING, type SentCommand } from "./scripted-qmp-peer.ts";
import { StandbyMonitor } from "./standby-monitor.ts";

const URI = { uri: "unix:/run/again.sock" };

let directory: string;
let path: string;
let qemu: QemuSide;
const monitors: StandbyMonitor[] = [];

/** QEMU's side: it holds both ends of both FIFOs. */
class QemuSide {
  readonly commands: SentCommand[] = [];
  onCommand: (command: SentCommand) => void = (command) => {
    this.say({ return: {}, id: command.id });
  };
  readonly #input: Socket;
  readonly #output: FileHandle;

  private constructor(input: Socket, output: FileHandle) {
    this.#input = input;
    this.#output = output;
    let text = "";
    input.on("data", (chunk: Buffer) => {
      const lines = (text + chunk.toString()).split("\n");
      text = lines.pop()!;
      for (const line of lines) {
        const command = JSON.parse(line) as SentCommand;
        this.commands.push(command);
        this.onCommand(command);
      }
    });
  }

  static async open(path: string): Promise<QemuSide> {
    const flags = constants.O_RDWR | constants.O_NONBLOCK;
    const input = new Socket({ fd: openSync(`${path}.in`, flags), writable: false });
    const side = new QemuSide(input, await open(`${path}.out`, flags));
    side.say(GREETING);
    return side;
  }

  say(message: unknown): void {
    this.sayRaw(`${JSON.stringify(message)}\r\n`);
  }

  sayRaw(text: string): void {
    void this.#output.write(text);
  }

  /** As `sayRaw`, and waits for room. */
  async pour(text: string): Promise<void> {
    let rest = Buffer.from(text);
    while (rest.length > 0) {
      const { bytesWritten } = await this.#output.write(rest).catch(() => ({ bytesWritten: 0 }));
      rest = rest.subarray(bytesWritten);
      await new Promise((resolve) => setImmediate(resolve));
    }
  }

  async close(): Promise<void> {
    this.#input.destroy();
    await this.#output.close();
  }
}

beforeEach(async () => {
  directory = await mkdtemp(join(tmpdir(), "standby-"));
  path = join(directory, "standby");
  await StandbyMonitor.make(path);
  qemu = await QemuSide.open(path);
});

afterEach(async () => {
  await Promise.all(monitors.splice(0).map((monitor) => monitor.close()));
  await qemu.close();
  await rm(directory, { recursive: true });
});

async function begin(): Promise<StandbyMonitor> {
  const monitor = await StandbyMonitor.begin({ path });
  monitors.push(monitor);
  return monitor;
}

async function goOn(): Promise<StandbyMonitor> {
  const monitor = await StandbyMonitor.goOn({ path });
  monitors.push(monitor);
  return monitor;
}

describe("a standby monitor", () => {
  it("makes FIFOs for its user alone, in place of earlier ones", async () => {
    await StandbyMonitor.make(path);
    for (const end of ["in", "out"]) {
      const stats = await stat(`${path}.${end}`);
      expect(stats.isFIFO()).toBe(true);
      expect(stats.mode & 0o777).toBe(0o600);
    }
  });

  it("agrees once on commands out of band, and sends them", async () => {
    const monitor = await begin();
    await monitor.executeOob("migrate-recover", URI);
    expect(qemu.commands).toMatchObject([
      { execute: "qmp_capabilities", arguments: { enable: ["oob"] } },
      { "exec-oob": "migrate-recover", arguments: URI },
    ]);
  });

  it("goes on where an earlier agent has ended, whatever QEMU has said meanwhile", async () => {
    const first = await begin();
    await first.close();
    // The end of a line that the earlier agent had begun to read, and an answer that it was owed.
    qemu.sayRaw('"postcopy-paused"}}\r\n');
    qemu.say({ return: {}, id: "vmferry-00000000000000aa-7" });
    for (let i = 0; i < 50; i++) {
      qemu.say({ event: "STOP", timestamp: { seconds: 1, microseconds: 1 } });
    }
    const second = await goOn();
    await second.executeOob("migrate-recover", URI);
    expect(qemu.commands).toHaveLength(2);
  });

  it("tells QEMU's refusal", async () => {
    const monitor = await begin();
    qemu.onCommand = ({ id }) => {
      qemu.say({ error: { class: "GenericError", desc: "not paused" }, id });
    };
    await expect(monitor.executeOob("migrate-recover", URI)).rejects.toMatchObject({
      detail: { code: "qmp-command-failed", description: "not paused" },
    });
  });

  it("is none where QEMU does not agree", async () => {
    qemu.onCommand = ({ id }) => {
      qemu.say({ error: { class: "GenericError", desc: "no oob here" }, id });
    };
    await expect(begin()).rejects.toMatchObject({ code: "qmp-command-failed" });
  });

  it("is none where nobody has the FIFOs open, and does not wait for it", async () => {
    const other = join(directory, "other");
    await StandbyMonitor.make(other);
    await expect(StandbyMonitor.goOn({ path: other })).rejects.toMatchObject({
      detail: { code: "qmp-connect-failed", systemCode: "ENXIO" },
    });
    await expect(StandbyMonitor.goOn({ path: join(directory, "x") })).rejects.toMatchObject({
      detail: { systemCode: "ENOENT" },
    });
  });

  it("ends when QEMU does", async () => {
    const monitor = await begin();
    qemu.onCommand = () => undefined;
    const recovered = expect(monitor.executeOob("migrate-recover", URI)).rejects.toMatchObject({
      code: "qmp-closed",
    });
    await expect.poll(() => qemu.commands.length).toBe(2);
    await qemu.close();
    await recovered;
    qemu = await QemuSide.open(path);
  });

  it("keeps nothing of a line without an end", async () => {
    const monitor = await begin();
    for (let i = 0; i < 40; i++) await qemu.pour("x".repeat(32_768));
    await qemu.pour("\n");
    await monitor.executeOob("migrate-recover", URI);
  });

  it("sends what is on the list, and nothing else", async () => {
    const monitor = await begin();
    await expect(monitor.executeOob("migrate-recover", { uri: "exec:true" })).rejects.toMatchObject(
      { code: "qmp-arguments-not-allowed" },
    );
  });
});
