/**
 * The QEMU that a guest leaves, with the habits of handover.md §2: it goes on by itself when its
 * migration socket closes before it has said postmigrate, but not while it waits at the switch-over;
 * from postmigrate only `cont` starts it.
 */
import {
  DEVICE,
  Machine,
  Refusal,
  type DiskAnswer,
  type DiskWrite,
  type MachinePorts,
} from "./machine.ts";
import { BLOCKS, PAGES } from "./truth.ts";

type Migration =
  | "none"
  | "active"
  | "pre-switchover"
  | "device"
  | "cancelling"
  | "completed"
  | "failed"
  | "cancelled";

/** The agent's end of the migration socket. */
export interface MigrationSocket {
  readonly pages: (pages: readonly (readonly [page: number, value: number])[]) => void;
  /** Device state and all: only the return path's SHUT is still to come. */
  readonly end: () => void;
}

/** An agent that stands between the guest and its disk. */
export interface Gate {
  write(write: DiskWrite): DiskAnswer;
}

export interface SourceMachinePorts extends MachinePorts {
  readonly disk: number[];
  readonly socketOf: (uri: string) => MigrationSocket | null;
}

const STATUS_NAMES: Readonly<Partial<Record<Migration, string>>> = { device: "device" };

export class SourceMachine extends Machine {
  readonly #ports: SourceMachinePorts;
  readonly #dirty = new Set<number>();
  /** Null where QEMU has the image itself. */
  gate: Gate | null = null;
  #migration: Migration = "none";
  #attempt = 0;
  #socket: MigrationSocket | null = null;
  #isBroken = false;
  #isStunDue = false;
  #wasShut = false;

  constructor(ports: SourceMachinePorts) {
    super("source", ports, "paused", new Array<number>(PAGES + 1).fill(0));
    this.#ports = ports;
    this.run();
  }

  get migration(): string {
    return STATUS_NAMES[this.#migration] ?? this.#migration;
  }

  command(name: string, values: Readonly<Record<string, unknown>>): unknown {
    switch (name) {
      case "query-status":
        return { status: this.status, running: this.isRunning };
      case "query-migrate":
        return { status: this.migration, ram: null, errorDescription: null };
      case "migrate-set-capabilities":
      case "migrate-set-parameters":
        return {};
      case "migrate":
        return this.#migrate(String(values["uri"]));
      case "migrate-continue":
        return this.#continue();
      case "migrate_cancel":
        return this.#cancel();
      case "cont":
        return this.#cont();
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

  /** The agent has closed its end, or is gone. */
  socketClosed(socket: MigrationSocket): void {
    if (this.#socket !== socket) return;
    this.#isBroken = true;
    if (this.#migration === "active") this.#failed();
    if (this.#migration !== "device" || this.#wasShut) return;
    this.after(this.ports.random.spread(0.1, 20), () => {
      if (this.#migration === "device" && !this.#wasShut) this.#failed();
    });
  }

  /** SHUT came on the return path. */
  shut(socket: MigrationSocket): void {
    if (this.#socket !== socket || this.#migration !== "device") return;
    this.#wasShut = true;
    this.after(this.ports.random.spread(0.1, 10), () => {
      if (this.#migration !== "device") return;
      this.#enter("completed");
      this.halt("postmigrate");
    });
  }

  /** QEMU gives its migration up for a reason of its own. */
  spoil(): void {
    const isUnderWay = this.#migration === "active" || this.#migration === "device";
    if (isUnderWay && !this.#wasShut) this.#failed();
  }

  protected override write(write: DiskWrite): DiskAnswer {
    if (this.gate !== null) return this.gate.write(write);
    this.#ports.disk[write.block] = write.value;
    return "written";
  }

  protected override dirtied(page: number): void {
    this.#dirty.add(page);
  }

  protected override drained(): void {
    if (this.#isStunDue) this.#stun();
  }

  #migrate(uri: string): object {
    if (this.#migration === "active" || this.#migration === "pre-switchover") {
      throw new Refusal("There's a migration process in progress");
    }
    if (this.#migration === "device" || this.#migration === "cancelling") {
      throw new Refusal("There's a migration process in progress");
    }
    if (this.status === "postmigrate") throw new Refusal("Guest is not migratable now");
    this.#socket = this.#ports.socketOf(uri);
    [this.#isBroken, this.#isStunDue, this.#wasShut] = [false, false, false];
    this.#attempt += 1;
    for (let page = 0; page <= DEVICE; page++) this.#dirty.add(page);
    this.#enter("active");
    if (this.#socket === null) this.#failed();
    else this.#pump(this.#attempt);
    return {};
  }

  #pump(attempt: number): void {
    this.after(this.ports.random.spread(1, 60), () => {
      if (this.#migration !== "active" || attempt !== this.#attempt || this.#isStunDue) return;
      this.#send([...this.#dirty].filter((page) => page !== DEVICE).slice(0, 2));
      const { random } = this.ports;
      if (this.#dirty.size <= 2 && random.chance(0.5)) this.#stun();
      else this.#pump(attempt);
    });
  }

  /** What is under way to the disk comes first. */
  #stun(): void {
    this.#isStunDue = this.pending !== null;
    if (this.#isStunDue || this.#migration !== "active") return;
    this.halt("finish-migrate");
    this.#enter("pre-switchover");
  }

  #continue(): object {
    if (this.#migration !== "pre-switchover") {
      throw new Refusal("Migration not in expected state");
    }
    this.#enter("device");
    if (this.#isBroken) {
      this.#failed();
      return {};
    }
    this.after(this.ports.random.spread(0.5, 30), () => {
      if (this.#migration !== "device") return;
      this.#send([...this.#dirty]);
      this.#socket?.end();
    });
    return {};
  }

  #cancel(): object {
    switch (this.#migration) {
      case "active":
      case "device":
        this.#enter("cancelling");
        this.after(this.ports.random.spread(0.5, 50), () => {
          this.#enter("cancelled");
          this.#goOn();
        });
        return {};
      case "pre-switchover":
        this.#enter("cancelled");
        this.#goOn();
        return {};
      case "none":
      case "cancelling":
      case "completed":
      case "failed":
      case "cancelled":
        return {};
    }
  }

  #cont(): object {
    if (this.status === "finish-migrate") throw new Refusal("Migration is not finalized yet");
    this.run();
    return {};
  }

  #failed(): void {
    this.#enter("failed");
    this.#goOn();
  }

  #goOn(): void {
    this.#isStunDue = false;
    this.#socket = null;
    if (this.status === "finish-migrate") this.run();
  }

  #enter(migration: Migration): void {
    this.#migration = migration;
    this.ports.note(`source QEMU migrates: ${migration}`);
    this.emit("MIGRATION", { status: this.migration });
  }

  #send(pages: readonly number[]): void {
    const { memory } = this;
    if (memory === null || pages.length === 0) return;
    for (const page of pages) this.#dirty.delete(page);
    this.#socket?.pages(pages.map((page) => [page, memory[page] ?? 0] as const));
  }
}

/** A disk on which nothing was written. */
export function emptyDisk(): number[] {
  return new Array<number>(BLOCKS).fill(0);
}
