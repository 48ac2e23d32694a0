/** The API's migration objects and events, as far as this command reads them. Null: not known. */

export interface Migration {
  readonly id: string;
  readonly role: "source" | "dest";
  readonly guest: string;
  readonly destination: string;
  readonly phase: string;
  readonly phases: readonly { readonly phase: string; readonly at: string }[];
  readonly ram: {
    readonly totalBytes: number | null;
    readonly sentBytes: number;
    readonly remainingBytes: number | null;
    readonly heldBytes: number;
    readonly zeroBytes: number;
    readonly unchangedBytes: number;
    readonly pass: number;
    readonly dirtyBytesPerSecond: number | null;
  };
  readonly disks: readonly {
    readonly id: string;
    readonly mode: string;
    readonly totalBytes: number | null;
    readonly copiedBytes: number;
    readonly remainingBytes: number | null;
    readonly mirroredBytes: number;
    readonly heldBytes: number;
    readonly round: number;
    readonly zeroBytes: number;
    readonly unchangedBytes: number;
    readonly savedBytes: number;
  }[];
  readonly wire: {
    readonly bytes: number;
    readonly bytesPerSecond: number | null;
    readonly reconnects: number;
  };
  readonly faults: {
    readonly count: number;
    readonly p50Us: number | null;
    readonly p99Us: number | null;
  };
  /** The file of pages on the share: `growing`, `complete` or `failed`. Null: there is none. */
  readonly fallback: string | null;
  readonly predictedDowntimeMs: number | null;
  readonly etaMs: number | null;
  readonly result: {
    readonly downtimeMs: number | null;
    readonly totalMs: number | null;
    readonly wireBytes: number | null;
    readonly ramDigest: string | null;
    readonly diskDigests: Readonly<Record<string, string>>;
  } | null;
  readonly error: Complaint | null;
  readonly mayCancel: boolean;
}

export interface Complaint {
  readonly code: string;
  readonly detail: string;
}

export interface MigrationEvent {
  readonly id: number;
  readonly at: string;
  readonly type: string;
  readonly migration: Migration;
  /** With `migration.warning` only. */
  readonly warning?: Complaint;
}

export interface MigrationPage {
  readonly migrations: readonly Migration[];
  readonly nextCursor: string | null;
}

/** The body of `POST /v1/migrations`. What is left out has the agent's default. */
export interface MigrationRequest {
  readonly guest: string;
  readonly destination: string;
  readonly mode?: string;
  readonly onStall?: string;
  readonly fallback?: string;
  readonly allowUnsafe?: readonly string[];
  readonly disk?: { readonly handover?: string };
  readonly limits?: {
    readonly downtimeMsMax?: number;
    readonly bandwidthBytesPerSecond?: number;
  };
}

/** `in-doubt` is not one of them: it ends when the two agents have talked. */
export function isFinalPhase(phase: string): boolean {
  return phase === "completed" || phase === "failed" || phase === "cancelled";
}

/** Of all disks together; unknown as soon as that of one is. */
export function diskBytesLeft({ disks }: Migration): number | null {
  const lefts = disks.filter(({ mode }) => mode === "copy").map((disk) => disk.remainingBytes);
  return lefts.reduce((sum, left) => (sum === null || left === null ? null : sum + left), 0);
}

/** When it began; null where an earlier life of the agent began it and has not written down when. */
export function startedAtOf({ phases }: Pick<Migration, "phases">): string | null {
  const [first] = phases;
  return first?.phase === "preparing" ? first.at : null;
}

/** What was counted before the agent was restarted, and not written down at the end, nobody knows. */
export function isCounted(migration: Pick<Migration, "phases" | "result">): boolean {
  return startedAtOf(migration) !== null && migration.result?.wireBytes !== null;
}
