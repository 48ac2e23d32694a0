/**
 * The RAM section of a guest that lacks some of its memory, beside the guest: who takes its QEMU up
 * after this agent has to name blocks as they were announced to it, and to know the hand-over.
 */
import { readFile, rm, stat } from "node:fs/promises";
import { join } from "node:path";
import { asPageFileKey, writeDurably, type PageFileKey } from "@vmferry/agent";
import { AgentError, messageOf } from "@vmferry/core";
import { limits, type StunRef } from "@vmferry/protocol";
import type { RamBlock, RamSection } from "@vmferry/qemu";

const { PAGE_BYTES, RAM_BLOCKS_MAX } = limits;
const FILE_NAME = "ram-section.json";
/** An agent that does not know of urgent channels would leave a QEMU that has one waiting for ever. */
const VERSION_URGENT = 2;
const VERSION = 1;
const FILE_BYTES_MAX = 512 * 1024;
const NAME_CHARACTERS_MAX = 255;
const SECTION_ID_MAX = 0xffff_ffff;

export class KeptSectionError extends AgentError<{ readonly code: "ram-section-unusable" }> {}

/** Durable when it resolves. */
export async function keepSection(
  directory: string,
  { migrationId, epoch, generation, incarnation }: KeptClaim,
  { sectionId, blocks, fileKey, hasUrgentChannel }: RamSection & KeptWays,
): Promise<void> {
  const path = join(directory, FILE_NAME);
  const list = blocks.map(({ name, lengthBytes }) => ({ name, lengthBytes }));
  const claim = { migrationId, epoch, generation, incarnation };
  const ways = { fileKey, hasUrgentChannel };
  const version = hasUrgentChannel ? VERSION_URGENT : VERSION;
  const text = JSON.stringify({ version, ...claim, sectionId, blocks: list, ...ways });
  await writeDurably(path, text);
}

export async function dropSection(directory: string): Promise<void> {
  await rm(join(directory, FILE_NAME), { force: true });
}

/** Null where there is none; rejects with `ram-section-unusable` where it is not whole. */
export async function readSection(directory: string): Promise<KeptSection | null> {
  const path = join(directory, FILE_NAME);
  let kept: Kept;
  try {
    const { size } = await stat(path);
    if (size > FILE_BYTES_MAX) throw unusable(path, `it has ${size} bytes`);
    kept = JSON.parse(await readFile(path, "utf8")) as Kept;
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === "ENOENT") return null;
    throw error instanceof KeptSectionError ? error : unusable(path, messageOf(error), error);
  }
  const reason = problemWith(kept);
  if (reason !== null) throw unusable(path, reason);
  const { migrationId, epoch, generation, incarnation, sectionId } = kept;
  const blocks = kept.blocks.map(({ name, lengthBytes }) => ({ name, lengthBytes }));
  const claim = { migrationId, epoch, generation, incarnation };
  const fileKey = asPageFileKey(kept.fileKey);
  const hasUrgentChannel = kept.hasUrgentChannel === true;
  return { claim, section: { sectionId, blocks }, fileKey, hasUrgentChannel };
}

export interface KeptSection extends KeptWays {
  readonly claim: KeptClaim;
  readonly section: RamSection;
}

/** How memory arrives, beside QEMU's stream. */
interface KeptWays {
  /** Null where nothing of the memory goes by a share. */
  readonly fileKey: PageFileKey | null;
  /** QEMU has a second connection, for pages that it has asked for. */
  readonly hasUrgentChannel: boolean;
}

/** The hand-over, and the incarnation of its source. */
export interface KeptClaim extends StunRef {
  readonly incarnation: string;
}

interface Kept extends RamSection, KeptClaim {
  readonly version: number;
  /** Earlier releases had none of these. */
  readonly fileKey?: unknown;
  readonly hasUrgentChannel?: unknown;
}

/** What is wrong with the content of a file, of which nothing is known yet. */
function problemWith(kept: Partial<Kept> | null): string | null {
  if (typeof kept !== "object" || kept === null) return "its version";
  if (kept.version !== VERSION && kept.version !== VERSION_URGENT) return "its version";
  if ((kept.hasUrgentChannel === true) !== (kept.version === VERSION_URGENT)) {
    return "hasUrgentChannel";
  }
  const { migrationId, epoch, generation, incarnation, sectionId, blocks } = kept;
  if (typeof migrationId !== "string" || typeof incarnation !== "string") return "its hand-over";
  if (!isWhole(epoch) || !isWhole(generation)) return "its hand-over";
  if (!isWhole(sectionId) || sectionId > SECTION_ID_MAX) return "sectionId";
  if (!Array.isArray(blocks) || blocks.length === 0 || blocks.length > RAM_BLOCKS_MAX) {
    return "blocks";
  }
  const names = new Set<unknown>();
  for (const block of blocks as (Partial<RamBlock> | null)[]) {
    const { name, lengthBytes } = block ?? {};
    const isName = typeof name === "string" && /^[\x01-\xff]+$/.test(name);
    if (!isName || name.length > NAME_CHARACTERS_MAX || names.has(name)) return "name of a block";
    if (!isWhole(lengthBytes) || lengthBytes === 0 || lengthBytes % PAGE_BYTES !== 0) {
      return `lengthBytes of block ${name}`;
    }
    names.add(name);
  }
  return null;
}

function isWhole(value: unknown): value is number {
  return typeof value === "number" && Number.isSafeInteger(value) && value >= 0;
}

function unusable(path: string, reason: string, cause?: unknown): KeptSectionError {
  const text = `${path} cannot be used, so that the guest's memory cannot go on arriving: ${reason}`;
  return new KeptSectionError(text, { code: "ram-section-unusable" }, { cause });
}
