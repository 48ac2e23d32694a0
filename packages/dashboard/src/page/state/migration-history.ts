/** What the events of one migration told: samples for the charts, lines for the log. Bounded. */
import type { AgentEvent, MigrationObject } from "@vmferry/protocol";
import { formatBytes, formatMs } from "../format.ts";
import { sumOf } from "./sum-of.ts";

export interface Sample {
  /** Since the migration began. */
  readonly seconds: number;
  readonly ramRemaining: number | null;
  readonly diskRemaining: number | null;
  readonly dirtyRate: number | null;
  readonly wireRate: number | null;
  readonly ramHeld: number | null;
  readonly diskHeld: number | null;
}

export interface LogLine {
  readonly id: number;
  readonly at: string;
  readonly kind: "phase" | "pass" | "warning" | "end";
  readonly text: string;
}

const SAMPLES_MAX = 2048;
const LOG_LINES_MAX = 500;

export class MigrationHistory {
  #samples: Sample[] = [];
  readonly #log: LogLine[] = [];
  #beganMs: number | null = null;
  /** Samples that a sample stands for, once there were too many. */
  #every = 1;
  #skipped = 0;

  get samples(): readonly Sample[] {
    return this.#samples;
  }

  get log(): readonly LogLine[] {
    return this.#log;
  }

  add(event: AgentEvent): void {
    if (!("migration" in event)) return;
    const { migration } = event;
    this.#beganMs ??= Date.parse(migration.phases[0]?.at ?? event.at);
    this.#sample((Date.parse(event.at) - this.#beganMs) / 1000, migration);
    const line = lineOf(event);
    if (line === null) return;
    this.#log.push({ id: event.id, at: event.at, ...line });
    if (this.#log.length > LOG_LINES_MAX) this.#log.shift();
  }

  #sample(seconds: number, migration: MigrationObject): void {
    const last = this.#samples.at(-1);
    if (Number.isNaN(seconds) || (last !== undefined && seconds < last.seconds)) return;
    this.#skipped++;
    if (this.#skipped < this.#every) return;
    this.#skipped = 0;
    this.#samples.push(sampleOf(seconds, migration));
    if (this.#samples.length < SAMPLES_MAX) return;
    this.#samples = this.#samples.filter((_, index) => index % 2 === 0);
    this.#every *= 2;
  }
}

function sampleOf(seconds: number, migration: MigrationObject): Sample {
  const { role, ram, wire, phase } = migration;
  const disks = migration.disks.filter(({ mode }) => mode === "copy");
  const isMemoryKnown = ram.totalBytes !== null && ram.totalBytes > 0;
  // The dest counts nothing of it: what is held, is held at the source.
  const isHeldKnown = role === "source";
  const areDisksKnown = disks.length > 0;
  return {
    seconds,
    ramRemaining: isMemoryKnown ? ram.remainingBytes : null,
    diskRemaining: areDisksKnown ? sumOf(disks.map((disk) => disk.remainingBytes)) : null,
    dirtyRate: ram.dirtyBytesPerSecond,
    wireRate: phase === "preparing" ? null : wire.bytesPerSecond,
    ramHeld: isHeldKnown && isMemoryKnown ? ram.heldBytes : null,
    diskHeld: isHeldKnown && areDisksKnown ? sumOf(disks.map((disk) => disk.heldBytes)) : null,
  };
}

function lineOf(event: AgentEvent): Pick<LogLine, "kind" | "text"> | null {
  switch (event.type) {
    case "migration.phase": {
      const { phase, error } = event.migration;
      const doubt = error === null ? "" : `: ${error.detail}`;
      return { kind: "phase", text: `Phase ${phase}${doubt}` };
    }
    case "migration.pass":
      return { kind: "pass", text: passText(event.migration) };
    case "migration.warning":
      return { kind: "warning", text: `${event.warning.code}: ${event.warning.detail}` };
    case "migration.completed":
    case "migration.failed":
    case "migration.cancelled":
      return { kind: "end", text: endText(event.migration) };
    case "migration.progress":
    case "guest.state":
      return null;
  }
}

function passText({ phase, ram, disks }: MigrationObject): string {
  if (phase === "disk-copy") {
    const round = Math.max(0, ...disks.map((disk) => disk.round));
    return `Disks, round ${round}: ${formatBytes(sumOf(disks.map((d) => d.remainingBytes)))} left`;
  }
  return `Memory, pass ${ram.pass}: ${formatBytes(ram.remainingBytes)} left`;
}

function endText({ phase, result, error }: MigrationObject): string {
  if (error !== null) return `${phase}: ${error.code}: ${error.detail}`;
  return `${phase}: downtime ${formatMs(result?.downtimeMs ?? null)}, ${formatBytes(result?.wireBytes ?? null)} on the wire`;
}
