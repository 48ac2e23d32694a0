// Moves fresh guests from source to dest one after the other, through the same two agents.

import { judgeHandOver, type Lab, peakRssBytes } from "@vmferry/testkit";
import { MovingGuest, type MovingGuestOptions } from "../moving-guest.ts";

export interface Move {
  readonly number: number;
  readonly phase: string;
  readonly error: string | null;
  readonly totalMs: number | null;
  readonly downtimeMs: number | null;
  readonly wireMib: number | null;
  /** Between the last sign of life at the source and the first at the dest. */
  readonly silenceMs: number | null;
  readonly sameDigest: boolean;
  readonly findings: readonly string[];
  /** The most that either agent ever had resident. */
  readonly agentRssMib: number;
}

const MIB = 1024 * 1024;
const MOVE_MS_MAX = 300_000;

/** One guest: boots, moves, is checked and powered off. Never throws for a migration that failed. */
export async function moveOne(
  lab: Lab,
  number: number,
  options: MovingGuestOptions,
): Promise<Move> {
  const guest = await MovingGuest.boot(lab, options);
  try {
    const id = await guest.migrate();
    const { phase, error, result } = await lab.source.api.wait(id, MOVE_MS_MAX);
    const verdict =
      phase === "completed"
        ? await guest.verifyAtDest()
        : judgeHandOver({ sourceLines: guest.source.lines, destLines: [] });
    const atDest = await lab.dest.api.wait(id, 10_000).catch(() => null);
    return {
      number,
      phase,
      error: error === null ? null : `${error.code}: ${error.detail}`,
      totalMs: result?.totalMs ?? null,
      downtimeMs: result?.downtimeMs ?? null,
      wireMib: typeof result?.wireBytes === "number" ? Math.round(result.wireBytes / MIB) : null,
      silenceMs: verdict.silenceMs === null ? null : Math.round(verdict.silenceMs),
      sameDigest: result !== null && atDest?.result?.ramDigest === result.ramDigest,
      findings: verdict.findings.map(({ code, detail }) => `${code} (${detail})`),
      agentRssMib: Math.round(
        Math.max(...[lab.source, lab.dest].map(({ pid }) => peakRssBytes(pid))) / MIB,
      ),
    };
  } finally {
    await guest.end();
  }
}

/** Nothing to complain about. */
export function isClean({ phase, sameDigest, findings }: Move): boolean {
  return phase === "completed" && sameDigest && findings.length === 0;
}
