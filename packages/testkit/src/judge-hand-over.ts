// Judges from the two serial logs alone whether one guest went from source to dest undamaged.
//
// The guest numbers its signs of life, skips none and repeats none, wherever it runs. So both logs
// one after the other must read like the log of a guest that never moved. A line may have been cut
// by the hand-over: what the source had not yet put out travels in the serial port's FIFO, and its
// rest is the beginning of the dest's log.

import { parseConsoleLine, type GuestCounters } from "./console-line.ts";

export interface ConsoleLine {
  readonly text: string;
  /** On the host's monotonic clock. */
  readonly seenAtMs: number;
  /** False for the last line of a log as long as its end has not come. */
  readonly complete: boolean;
}

export type HandOverFindingCode =
  | "source-silent"
  | "dest-silent"
  | "sign-repeated"
  | "sign-missing"
  | "counter-went-back"
  | "line-torn"
  | "guest-error"
  | "kernel-complaint";

export interface HandOverFinding {
  readonly code: HandOverFindingCode;
  /** How often it was seen. */
  readonly count: number;
  /** What was seen the first time. */
  readonly detail: string;
}

export interface HandOverVerdict {
  /** Empty when all is well; one entry a code. */
  readonly findings: readonly HandOverFinding[];
  /** From the source's last sign of life to the dest's first; null where one of them is missing. */
  readonly silenceMs: number | null;
}

export function judgeHandOver(logs: {
  readonly sourceLines: readonly ConsoleLine[];
  readonly destLines: readonly ConsoleLine[];
}): HandOverVerdict {
  const { sourceLines, destLines } = joinCutLine(logs);
  const judge = new TranscriptJudge();
  const lastAtSource = judge.read("source", sourceLines).lastAtMs;
  const firstAtDest = judge.read("dest", destLines).firstAtMs;
  const silent = lastAtSource === null || firstAtDest === null;
  return {
    findings: judge.findings,
    silenceMs: silent ? null : firstAtDest - lastAtSource,
  };
}

/** Moves what the source began and did not end to the front of the dest's first line. */
function joinCutLine(logs: {
  readonly sourceLines: readonly ConsoleLine[];
  readonly destLines: readonly ConsoleLine[];
}): { sourceLines: readonly ConsoleLine[]; destLines: readonly ConsoleLine[] } {
  const begun = logs.sourceLines.at(-1);
  const sourceLines = logs.sourceLines.filter((line) => line.complete);
  const destLines = logs.destLines.filter((line) => line.complete);
  const [first, ...others] = destLines;
  if (begun === undefined || begun.complete || first === undefined) {
    return { sourceLines, destLines };
  }
  const joined = { ...first, text: begun.text + first.text };
  return { sourceLines, destLines: [joined, ...others] };
}

type Side = "source" | "dest";

interface SignTimes {
  firstAtMs: number | null;
  lastAtMs: number | null;
}

/** Reads both logs in order, as if they were one, and collects what is wrong. */
class TranscriptJudge {
  readonly #findings = new Map<HandOverFindingCode, HandOverFinding>();
  #lastSequence: number | null = null;
  #lastCounters: GuestCounters | null = null;
  /** The kernel's own lines may tear those of the workload: then a sign may be missing. */
  #kernelSpokeSinceLastSign = false;

  get findings(): readonly HandOverFinding[] {
    return [...this.#findings.values()];
  }

  read(side: Side, lines: readonly ConsoleLine[]): SignTimes {
    const times: SignTimes = { firstAtMs: null, lastAtMs: null };
    for (const line of lines) {
      const isSign = this.#readLine(side, line.text);
      if (!isSign) continue;
      times.firstAtMs ??= line.seenAtMs;
      times.lastAtMs = line.seenAtMs;
    }
    if (times.lastAtMs === null)
      this.#found(`${side}-silent`, `no sign of life in the ${side} log`);
    return times;
  }

  /** True for a sign of life. */
  #readLine(side: Side, text: string): boolean {
    const message = parseConsoleLine(text);
    switch (message.kind) {
      case "sign":
        this.#readSign(side, message.sequence);
        return true;
      case "report":
        this.#readReport(side, message.counters);
        return false;
      case "error":
        this.#found("guest-error", `${side}: ${text}`);
        return false;
      case "complaint":
        this.#found("kernel-complaint", `${side}: ${text}`);
        this.#kernelSpokeSinceLastSign = true;
        return false;
      case "kernel":
        this.#kernelSpokeSinceLastSign = true;
        return false;
      case "other":
        this.#readPiece(side, text);
        return false;
      case "ready":
        return false;
    }
  }

  #readSign(side: Side, sequence: number): void {
    const last = this.#lastSequence;
    if (last !== null && sequence <= last) {
      this.#found("sign-repeated", `${side}: #${sequence} after #${last}`);
      return; // or one guest that goes on from an older state would look like two findings a sign
    }
    if (last !== null && sequence > last + 1 && !this.#kernelSpokeSinceLastSign) {
      this.#found("sign-missing", `${side}: #${sequence} after #${last}`);
    }
    this.#lastSequence = sequence;
    this.#kernelSpokeSinceLastSign = false;
  }

  /** Once the workload speaks, nothing but the kernel can tear a line of its. */
  #readPiece(side: Side, text: string): void {
    if (this.#lastSequence === null || this.#kernelSpokeSinceLastSign) return;
    this.#found("line-torn", `${side}: ${JSON.stringify(text)}`);
  }

  #readReport(side: Side, counters: GuestCounters): void {
    for (const name of ["errors", "diskErrors", "ioErrors"] as const) {
      if (counters[name] > 0) this.#found("guest-error", `${side}: ${name} is ${counters[name]}`);
    }
    const last = this.#lastCounters;
    this.#lastCounters = counters;
    if (last === null) return;
    for (const name of Object.keys(counters) as (keyof GuestCounters)[]) {
      if (counters[name] >= last[name]) continue;
      const detail = `${side}: ${name} went from ${last[name]} to ${counters[name]}`;
      this.#found("counter-went-back", detail);
    }
  }

  #found(code: HandOverFindingCode, detail: string): void {
    const before = this.#findings.get(code);
    const count = (before?.count ?? 0) + 1;
    this.#findings.set(code, { code, count, detail: before?.detail ?? detail });
  }
}
