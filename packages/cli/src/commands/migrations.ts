import { isCounted, startedAtOf, type Migration } from "../api/migration.ts";
import { offered } from "../api/offered.ts";
import type { CommandContext } from "../command-context.ts";
import { usageError } from "../cli-error.ts";
import { EXIT_CODE, type ExitCode } from "../exit-code.ts";
import { printable } from "../render/printable.ts";
import { shareText } from "../render/share-text.ts";
import { renderDetails, renderTable } from "../render/table.ts";
import { formatBytes, formatDuration, formatRate } from "../units/format-amount.ts";

export interface ListOptions {
  readonly json?: boolean;
  readonly limit: number;
}

export async function listMigrations(
  { api, stdout, stderr }: CommandContext,
  { json = false, limit }: ListOptions,
): Promise<ExitCode> {
  const page = await api.migrations(limit);
  if (json) {
    stdout.write(`${JSON.stringify(page)}\n`);
    return EXIT_CODE.ok;
  }
  const head = ["ID", "GUEST", "DEST", "PHASE", "STARTED", "TOTAL", "DOWNTIME"];
  stdout.write(renderTable([head, ...page.migrations.map(rowOf)]));
  if (page.nextCursor !== null) stderr.write("There are more: see --limit.\n");
  return EXIT_CODE.ok;
}

export async function showMigration(
  { api, stdout }: CommandContext,
  id: string,
  { json = false }: { readonly json?: boolean },
): Promise<ExitCode> {
  const migration = await api.migration(id);
  stdout.write(json ? `${JSON.stringify(migration)}\n` : detailsOf(migration));
  return EXIT_CODE.ok;
}

export async function cancelMigration(
  { api, stdout }: CommandContext,
  id: string,
  { json = false }: { readonly json?: boolean },
): Promise<ExitCode> {
  const migration = await api.cancelMigration(id);
  const { guest, phase } = migration;
  const text = `Asked to cancel the migration of ${guest}, which is ${phase}.`;
  stdout.write(`${json ? JSON.stringify(migration) : text}\n`);
  return EXIT_CODE.ok;
}

export async function switchToPostCopy(
  { api, stdout }: CommandContext,
  id: string,
  { json = false }: { readonly json?: boolean },
): Promise<ExitCode> {
  const migration = await offered("post-copy", api.switchToPostCopy(id));
  const { guest, phase } = migration;
  const text = `Asked to switch the migration of ${guest} to post-copy; it is ${phase}.`;
  stdout.write(`${json ? JSON.stringify(migration) : text}\n`);
  return EXIT_CODE.ok;
}

export interface ResolveOptions {
  readonly fenced: boolean;
  readonly json?: boolean;
}

/** Says whose the guest is, where the agents cannot know. */
export async function resolveMigration(
  { api, stdout }: CommandContext,
  [id, owner]: readonly [string, string],
  { fenced, json = false }: ResolveOptions,
): Promise<ExitCode> {
  if (!fenced) {
    const other = owner === "source" ? "dest" : "source";
    throw usageError(
      `nothing was done: make sure that the guest cannot run at the ${other} any more, ` +
        "and say so with --fenced",
    );
  }
  const migration = await api.resolveMigration(id, owner);
  const { guest, phase } = migration;
  const text = `The guest ${guest} is the ${owner}'s now; its migration is ${phase}.`;
  stdout.write(`${json ? JSON.stringify(migration) : text}\n`);
  return EXIT_CODE.ok;
}

function rowOf(migration: Migration): string[] {
  const { id, guest, destination, phase, result } = migration;
  const startedAt = startedAtOf(migration)?.replace(/\.\d+Z$/, "Z") ?? "unknown";
  const ended = (durationMs: number | null | undefined): string =>
    durationMs === null || durationMs === undefined ? "-" : formatDuration(durationMs);
  return [
    id,
    guest,
    destination,
    phase,
    startedAt,
    ended(result?.totalMs),
    ended(result?.downtimeMs),
  ];
}

function detailsOf(migration: Migration): string {
  const { id, guest, destination, role, phase, ram, disks, wire } = migration;
  const { fallback, result, error } = migration;
  const counted = (bytes: number): string => formatBytes(isCounted(migration) ? bytes : null);
  const details: [string, string][] = [
    ["guest", guest],
    ["destination", destination],
    ["seen by", role],
    ["phase", phase],
    ["phases", phasesOf(migration)],
    ["memory", `${formatBytes(ram.totalBytes)}, of which left ${formatBytes(ram.remainingBytes)}`],
    ["sent", `${counted(ram.sentBytes)} in pages, ${counted(wire.bytes)} on the wire`],
    ["not sent", `${counted(ram.zeroBytes)} zero, ${counted(ram.unchangedBytes)} unchanged`],
    ["held", formatBytes(ram.heldBytes)],
    ["pass", isCounted(migration) ? String(ram.pass) : "unknown"],
    ["page faults", isCounted(migration) ? faultsOf(migration) : "unknown"],
    ...(fallback === null ? [] : [["on the share", fallbackOf(migration)] as [string, string]]),
    ["wire rate", formatRate(wire.bytesPerSecond)],
    ["dirty rate", formatRate(ram.dirtyBytesPerSecond)],
    ...disks.map((disk): [string, string] => [`disk ${disk.id}`, diskText(disk)]),
  ];
  if (result !== null) {
    details.push(["total", formatDuration(result.totalMs)]);
    details.push(["downtime", formatDuration(result.downtimeMs)]);
    details.push(["RAM digest", result.ramDigest ?? "unknown"]);
    for (const [disk, digest] of Object.entries(result.diskDigests)) {
      details.push([`digest of ${disk}`, digest]);
    }
  }
  if (error !== null) details.push(["error", printable(`${error.detail} (${error.code})`)]);
  return renderDetails(`Migration ${id}`, details);
}

function faultsOf({ faults }: Migration): string {
  const { count, p50Us, p99Us } = faults;
  if (p50Us === null || p99Us === null) return String(count);
  const [half, most] = [p50Us, p99Us].map((us) => formatDuration(us / 1000));
  return `${count}, half of them served within ${half}, 99 in 100 within ${most}`;
}

function fallbackOf(migration: Migration): string {
  const text = shareText(migration);
  return `file of pages ${migration.fallback ?? ""}${text === null ? "" : `. ${text}`}`;
}

function diskText(disk: Migration["disks"][number]): string {
  const total = formatBytes(disk.totalBytes);
  if (disk.mode !== "copy") return `${disk.mode}, ${total}`;
  return [
    `${total}, of which left ${formatBytes(disk.remainingBytes)}`,
    `copied ${formatBytes(disk.copiedBytes)} in ${disk.round} rounds`,
    `zero ${formatBytes(disk.zeroBytes)}`,
    `mirrored ${formatBytes(disk.mirroredBytes)}`,
    `held ${formatBytes(disk.heldBytes)}, which kept ${formatBytes(disk.savedBytes)} off the link`,
  ].join(", ");
}

/** Each phase with the time since the migration began; where nobody knows that, with its date. */
function phasesOf(migration: Migration): string {
  const { phases } = migration;
  if (startedAtOf(migration) === null) {
    return phases.map(({ phase, at }) => `${phase} ${at}`).join(", ") || "unknown";
  }
  const beganAtMs = Date.parse(phases[0]?.at ?? "");
  return phases
    .map(({ phase, at }) => `${phase} +${formatDuration(Date.parse(at) - beganAtMs)}`)
    .join(", ");
}
