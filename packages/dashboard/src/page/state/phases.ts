/** The phases as people are to read them. */
import type { MigrationObject, MigrationPhase } from "@vmferry/protocol";

export type Tone = "busy" | "still" | "good" | "bad" | "doubt" | "idle";

const TONES = {
  preparing: "busy",
  "disk-copy": "busy",
  "pre-copy": "busy",
  stunned: "still",
  "device-state": "still",
  "handing-over": "still",
  "post-copy": "busy",
  completing: "busy",
  completed: "good",
  failed: "bad",
  cancelled: "idle",
  "in-doubt": "doubt",
} as const satisfies Record<MigrationPhase, Tone>;

export function toneOf(phase: MigrationPhase): Tone {
  return TONES[phase];
}

export function isFinal(phase: MigrationPhase): boolean {
  return phase === "completed" || phase === "failed" || phase === "cancelled";
}

/** The map says something while the guest's state travels; amid the stun nobody asks for it. */
export function isCopying(phase: MigrationPhase): boolean {
  return phase === "disk-copy" || phase === "pre-copy" || phase === "post-copy";
}

export interface PhaseSpan {
  readonly phase: MigrationPhase;
  readonly at: string;
  /** Until the next phase, or until now; a final phase takes no time. */
  readonly ms: number;
  readonly isLast: boolean;
}

export function spansOf({ phases }: Pick<MigrationObject, "phases">, nowMs: number): PhaseSpan[] {
  return phases.map(({ phase, at }, index) => {
    const next = phases[index + 1];
    const untilMs = next === undefined ? nowMs : Date.parse(next.at);
    const ms = next === undefined && isFinal(phase) ? 0 : Math.max(0, untilMs - Date.parse(at));
    return { phase, at, ms, isLast: next === undefined };
  });
}

/** When it began; null where an earlier life of the agent began it and has not written down when. */
export function startedAtOf({ phases }: Pick<MigrationObject, "phases">): string | null {
  const [first] = phases;
  return first?.phase === "preparing" ? first.at : null;
}

/** What was counted before the agent was restarted, and not written down at the end, nobody knows. */
export function isCounted(migration: Pick<MigrationObject, "phases" | "result">): boolean {
  return startedAtOf(migration) !== null && migration.result?.wireBytes !== null;
}

/** From the first phase to the last, or to now; null where nobody knows when it began. */
export function elapsedMs(
  migration: Pick<MigrationObject, "phases" | "phase">,
  nowMs: number,
): number | null {
  const { phases, phase } = migration;
  const startedAt = startedAtOf(migration);
  const last = phases.at(-1);
  if (startedAt === null || last === undefined) return null;
  return Math.max(0, (isFinal(phase) ? Date.parse(last.at) : nowMs) - Date.parse(startedAt));
}
