/** The QEMU that a guest comes to: waits, loads, stands still until `cont`. */
import { Machine, Refusal, type DiskAnswer, type DiskWrite, type MachinePorts } from "./machine.ts";

export interface DestMachinePorts extends MachinePorts {
  readonly disk: () => number[] | null;
  /** Asked at each `cont`: it fails, and QEMU stands still. */
  readonly contFails: () => boolean;
  /** When what it should load fails. */
  readonly staysAfterFailure: boolean;
  /** Started without `-S`. */
  readonly autostarts: boolean;
}

export class DestMachine extends Machine {
  readonly #ports: DestMachinePorts;
  readonly #loads: ((loaded: boolean) => void)[] = [];
  #migration: "none" | "active" | "completed" | "failed" = "none";

  constructor(ports: DestMachinePorts) {
    super("dest", ports, "inmigrate", null);
    this.#ports = ports;
  }

  command(name: string): unknown {
    switch (name) {
      case "query-status":
        return { status: this.status, running: this.isRunning };
      case "query-migrate":
        return { status: this.#migration, ram: null, errorDescription: null };
      case "cont":
        if (this.status === "inmigrate") throw new Refusal("Guest is waiting for a migration");
        if (this.#ports.contFails()) throw new Refusal("Failed to get write lock");
        this.run();
        return {};
      case "stop":
        if (this.isRunning) this.halt("paused");
        return {};
      case "quit":
        this.after(1, () => {
          this.kill("told to quit");
        });
        return {};
      default:
        throw new Refusal(`unknown command ${name}`);
    }
  }

  /** The whole stream is there. */
  load(memory: readonly number[]): void {
    this.after(this.ports.random.spread(0.5, 40), () => {
      if (this.status !== "inmigrate" || this.#migration === "failed") return;
      this.memory = [...memory];
      this.#migration = "completed";
      this.halt("paused");
      for (const told of this.#loads.splice(0)) told(true);
      if (this.#ports.autostarts) this.run();
    });
  }

  /** The stream ended before its end. From 9.1 on QEMU may stay then, and says why. */
  streamClosed(): void {
    if (this.status !== "inmigrate" || !this.isAlive) return;
    this.#migration = "failed";
    for (const told of this.#loads.splice(0)) told(false);
    if (this.#ports.staysAfterFailure) return;
    this.after(this.ports.random.spread(0.1, 30), () => {
      this.kill("it could not load the migration");
    });
  }

  onLoad(told: (loaded: boolean) => void): void {
    this.#loads.push(told);
  }

  protected override dirtied(): void {
    // It does not leave again.
  }

  protected override write({ block, value }: DiskWrite): DiskAnswer {
    const disk = this.#ports.disk();
    if (disk === null) return "failed";
    disk[block] = value;
    return "written";
  }
}
