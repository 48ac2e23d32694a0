import { diskBytesLeft, isFinalPhase, type Migration } from "../api/migration.ts";
import { formatBytes, formatDuration, formatRate } from "../units/format-amount.ts";

interface Field {
  readonly text: string;
  /** The greatest goes first where the line is too narrow for all; 0 stays. */
  readonly dispensable: number;
}

const SEPARATOR = "  ";

/** Where a migration stands, in at most `columnsMax` characters. */
export function progressLine(migration: Migration, columnsMax = Infinity): string {
  const fields = fieldsOf(migration);
  for (;;) {
    const line = fields.map(({ text }) => text).join(SEPARATOR);
    if (line.length <= columnsMax) return line;
    const worst = Math.max(...fields.map(({ dispensable }) => dispensable));
    if (worst === 0) return line.slice(0, columnsMax);
    fields.splice(
      fields.findIndex(({ dispensable }) => dispensable === worst),
      1,
    );
  }
}

function fieldsOf(migration: Migration): Field[] {
  const { phase, ram, disks, wire } = migration;
  const fields: Field[] = [{ text: phase, dispensable: 0 }];
  // Before the guest's size is known there is nothing to tell, and after the end it is history.
  if ((ram.totalBytes === null && disks.length === 0) || isFinalPhase(phase)) return fields;
  fields.push({ text: `sent ${formatBytes(wire.bytes)}`, dispensable: 1 });
  if (phase === "disk-copy") return [...fields, ...diskFields(migration)];
  if (phase === "post-copy") return [...fields, ...fetchingFields(migration)];
  return phase === "pre-copy" ? [...fields, ...copyingFields(migration)] : fields;
}

/** Memory does not travel yet. */
function diskFields({ disks, wire, etaMs }: Migration): Field[] {
  const sum = (pick: (disk: Migration["disks"][number]) => number | null): number =>
    disks.reduce((bytes, disk) => bytes + (pick(disk) ?? 0), 0);
  const heldBytes = sum((disk) => disk.heldBytes);
  const held = { text: `held ${formatBytes(heldBytes)}`, dispensable: 6 };
  return [
    { text: `at ${formatRate(wire.bytesPerSecond)}`, dispensable: 2 },
    { text: `left ${formatBytes(sum((disk) => disk.remainingBytes))}`, dispensable: 3 },
    ...(heldBytes > 0 ? [held] : []),
    { text: `mirrored ${formatBytes(sum((disk) => disk.mirroredBytes))}`, dispensable: 5 },
    { text: `round ${Math.max(...disks.map(({ round }) => round))}`, dispensable: 7 },
    { text: `ETA ${formatDuration(etaMs)}`, dispensable: 4 },
  ];
}

/** Rates and forecasts are of the copying: in other phases they are as old as its end. */
function copyingFields({ ram, wire, predictedDowntimeMs, etaMs }: Migration): Field[] {
  const held = { text: `held ${formatBytes(ram.heldBytes)}`, dispensable: 8 };
  return [
    { text: `at ${formatRate(wire.bytesPerSecond)}`, dispensable: 2 },
    { text: `left ${formatBytes(ram.remainingBytes)}`, dispensable: 3 },
    ...(ram.heldBytes > 0 ? [held] : []),
    { text: `dirty ${formatRate(ram.dirtyBytesPerSecond)}`, dispensable: 6 },
    { text: `pass ${ram.pass}`, dispensable: 5 },
    { text: `downtime ${predicted(predictedDowntimeMs)}`, dispensable: 7 },
    { text: `ETA ${formatDuration(etaMs)}`, dispensable: 4 },
  ];
}

/** The guest runs at the dest: its memory is not written here any more, and its downtime is over. */
function fetchingFields(migration: Migration): Field[] {
  const { ram, wire, faults, fallback, etaMs } = migration;
  const { count, p99Us } = faults;
  const diskBytes = diskBytesLeft(migration);
  const slowest = { text: `p99 ${formatDuration((p99Us ?? 0) / 1000)}`, dispensable: 7 };
  const disks = { text: `disks left ${formatBytes(diskBytes)}`, dispensable: 3 };
  const share = { text: `share ${fallback ?? ""}`, dispensable: 4 };
  return [
    { text: `at ${formatRate(wire.bytesPerSecond)}`, dispensable: 2 },
    { text: `left ${formatBytes(ram.remainingBytes)}`, dispensable: 3 },
    ...(diskBytes === 0 ? [] : [disks]),
    ...(fallback === null ? [] : [share]),
    { text: `faults ${count}`, dispensable: 6 },
    ...(p99Us === null ? [] : [slowest]),
    { text: `ETA ${formatDuration(etaMs)}`, dispensable: 5 },
  ];
}

function predicted(downtimeMs: number | null): string {
  return downtimeMs === null ? "unknown" : `~${formatDuration(downtimeMs)}`;
}
