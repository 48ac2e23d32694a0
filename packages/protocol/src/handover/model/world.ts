/**
 * A world: both agents with their journals, both QEMUs, what was ever said, and which faults may
 * still happen. All of it is numbers, packed into `WORLD_WORDS` words, so that millions fit.
 */
export interface World {
  /** Numbers of a state, of the actions that wait, and of the last durable record. */
  source: number;
  sourcePending: number;
  sourceJournal: number;
  sourceUp: number;
  sourceQemu: SourceQemu;
  /** 1 = the agent has yet to hear that the guest runs here again. */
  sourceDue: number;
  /** How many of the guest's writes its memory and its disks here know of. */
  sourceVersion: number;
  dest: number;
  destPending: number;
  destJournal: number;
  destUp: number;
  destQemu: DestQemu;
  /** 1 = the agent has yet to hear that `cont` failed and nothing ran. */
  destDue: number;
  destVersion: number;
  /** The guest has executed an instruction at the dest. */
  destRan: number;
  /** Writes that the guest was told to be durable. */
  acked: number;
  attempts: number;
  /** Migrations that the dest's journal names, a bit each. */
  destKnows: number;
  /** 1 = the dest has lost its journal, and is another incarnation. */
  destLife: number;
  sourceForgot: number;
  /** A QEMU that held the latest memory was killed. */
  memoryHit: number;
  /** Two bits for each migration: see `Verdict`. */
  witness: number;
  /** Bit 0, 1: the source, the dest has read the witness and found it in its favour. */
  saw: number;
  /** Faults that may still happen. */
  sourceCrashes: number;
  destCrashes: number;
  sourceKills: number;
  destKills: number;
  sourceHostCrashes: number;
  destHostCrashes: number;
  sourceForgets: number;
  destForgets: number;
  links: number;
  damages: number;
  contFailures: number;
  /** How often a person at the source may say that the guest is the dest's. */
  sourceWords: number;
  /** What is on the wire, as its kind packs it: see `Wire`. */
  wire0: number;
  wire1: number;
  bulk: number;
  linkUp: number;
}

/** `fault`: without yet another of them it does not happen. */
export type Emit = (label: string, world: World, fault?: boolean) => void;

export const SourceQemu = {
  GONE: 0,
  RUNNING: 1,
  /** vCPUs stopped; it stays so until it is told to go on or cancelled. */
  SWITCHOVER: 2,
  /** The rest is sent; it goes on by itself when its socket closes. */
  FINISHING: 3,
  /** SHUT is forwarded; what it does when its socket closes depends on which comes first. */
  SHUT: 4,
  POSTMIGRATE: 5,
} as const;
export type SourceQemu = (typeof SourceQemu)[keyof typeof SourceQemu];

export const DestQemu = { GONE: 0, INCOMING: 1, PAUSED: 2, RUNNING: 3 } as const;
export type DestQemu = (typeof DestQemu)[keyof typeof DestQemu];

export const Verdict = { FREE: 0, TAKEN: 1, REVOKED: 2 } as const;

/** What a QEMU has loaded that was damaged on its way. */
export const DAMAGED = 3;
/** As many as the two bits of a version leave beside `DAMAGED`. */
export const WRITES_MAX = 2;
export const ATTEMPTS_MAX = 2;
export const MESSAGES_MAX = 64;

export const WORLD_WORDS = 6;

export type Budgets = Pick<
  World,
  | "sourceCrashes"
  | "destCrashes"
  | "sourceKills"
  | "destKills"
  | "sourceHostCrashes"
  | "destHostCrashes"
  | "sourceForgets"
  | "destForgets"
  | "links"
  | "damages"
  | "contFailures"
  | "sourceWords"
>;

export const NO_FAULTS: Budgets = {
  sourceCrashes: 0,
  destCrashes: 0,
  sourceKills: 0,
  destKills: 0,
  sourceHostCrashes: 0,
  destHostCrashes: 0,
  sourceForgets: 0,
  destForgets: 0,
  links: 0,
  damages: 0,
  contFailures: 0,
  sourceWords: 0,
};

export function firstWorld(budgets: Budgets): World {
  return {
    source: 0,
    sourcePending: 0,
    sourceJournal: 0,
    sourceUp: 1,
    sourceQemu: SourceQemu.RUNNING,
    sourceDue: 0,
    sourceVersion: 0,
    dest: 0,
    destPending: 0,
    destJournal: 0,
    destUp: 1,
    destQemu: DestQemu.GONE,
    destDue: 0,
    destVersion: 0,
    destRan: 0,
    acked: 0,
    attempts: 0,
    destKnows: 0,
    destLife: 0,
    sourceForgot: 0,
    memoryHit: 0,
    witness: 0,
    saw: 0,
    ...budgets,
    wire0: 0,
    wire1: 0,
    bulk: 0,
    linkUp: 0,
  };
}

export function packWorld(w: World, words: Uint32Array, at: number): void {
  words[at] = w.source | (w.sourcePending << 8) | (w.sourceJournal << 16) | (w.sourceUp << 24);
  words[at + 1] = w.dest | (w.destPending << 8) | (w.destJournal << 16) | (w.destUp << 24);
  words[at + 2] =
    w.sourceQemu |
    (w.sourceDue << 3) |
    (w.sourceVersion << 4) |
    (w.destQemu << 6) |
    (w.destDue << 8) |
    (w.destVersion << 9) |
    (w.destRan << 11) |
    (w.acked << 12) |
    (w.attempts << 14) |
    (w.destKnows << 16) |
    (w.destLife << 19) |
    (w.sourceForgot << 20) |
    (w.memoryHit << 21) |
    (w.witness << 22) |
    (w.saw << 28);
  words[at + 3] =
    w.sourceCrashes |
    (w.destCrashes << 2) |
    (w.sourceKills << 4) |
    (w.destKills << 6) |
    (w.sourceHostCrashes << 8) |
    (w.destHostCrashes << 10) |
    (w.sourceForgets << 12) |
    (w.destForgets << 13) |
    (w.links << 14) |
    (w.damages << 16) |
    (w.contFailures << 18) |
    (w.bulk << 20) |
    (w.linkUp << 26) |
    (w.sourceWords << 27);
  words[at + 4] = w.wire0;
  words[at + 5] = w.wire1;
}

export function unpackWorld(words: Uint32Array, at: number): World {
  const [a, b, c, d] = [words[at]!, words[at + 1]!, words[at + 2]!, words[at + 3]!];
  return {
    source: a & 255,
    sourcePending: (a >> 8) & 255,
    sourceJournal: (a >> 16) & 255,
    sourceUp: (a >> 24) & 1,
    sourceQemu: (c & 7) as SourceQemu,
    sourceDue: (c >> 3) & 1,
    sourceVersion: (c >> 4) & 3,
    dest: b & 255,
    destPending: (b >> 8) & 255,
    destJournal: (b >> 16) & 255,
    destUp: (b >> 24) & 1,
    destQemu: ((c >> 6) & 3) as DestQemu,
    destDue: (c >> 8) & 1,
    destVersion: (c >> 9) & 3,
    destRan: (c >> 11) & 1,
    acked: (c >> 12) & 3,
    attempts: (c >> 14) & 3,
    destKnows: (c >> 16) & 7,
    destLife: (c >> 19) & 1,
    sourceForgot: (c >> 20) & 1,
    memoryHit: (c >> 21) & 1,
    witness: (c >> 22) & 63,
    saw: (c >> 28) & 3,
    sourceCrashes: d & 3,
    destCrashes: (d >> 2) & 3,
    sourceKills: (d >> 4) & 3,
    destKills: (d >> 6) & 3,
    sourceHostCrashes: (d >> 8) & 3,
    destHostCrashes: (d >> 10) & 3,
    sourceForgets: (d >> 12) & 1,
    destForgets: (d >> 13) & 1,
    links: (d >> 14) & 3,
    damages: (d >> 16) & 3,
    contFailures: (d >> 18) & 3,
    sourceWords: (d >> 27) & 3,
    wire0: words[at + 4]! | 0,
    wire1: words[at + 5]! | 0,
    bulk: (d >> 20) & 63,
    linkUp: (d >> 26) & 1,
  };
}
