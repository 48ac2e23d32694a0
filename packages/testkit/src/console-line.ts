// What one line of the guest's serial console says; the protocol is described in guest/README.md.

/** The counters of one report: none of them ever goes back. */
export interface GuestCounters {
  readonly sequence: number;
  /** Guest time: it stands still while the guest is held. */
  readonly guestMs: number;
  readonly pages: number;
  readonly writes: number;
  readonly verified: number;
  readonly sweeps: number;
  readonly errors: number;
  readonly diskWrites: number;
  /** Records that were trimmed or zeroed. */
  readonly diskTrims: number;
  readonly diskReads: number;
  readonly diskSweeps: number;
  readonly diskErrors: number;
  readonly ioErrors: number;
}

/** How long disk writes took, of those since the report before; 0 where there were none. */
export interface GuestLatency {
  readonly diskP50Us: number;
  readonly diskP99Us: number;
}

export type ConsoleMessage =
  | { readonly kind: "sign"; readonly sequence: number }
  | {
      readonly kind: "report";
      readonly counters: GuestCounters;
      readonly latency: GuestLatency;
    }
  /** Memory is filled, the work begins. The values are those of the kernel command line. */
  | { readonly kind: "ready"; readonly parameters: ReadonlyMap<string, string> }
  /** The workload found damage, or cannot go on. */
  | { readonly kind: "error" }
  /** The guest's kernel says that something is wrong. */
  | { readonly kind: "complaint" }
  /** The kernel says anything else, perhaps amid a line of the workload. */
  | { readonly kind: "kernel" }
  /** From before the workload, or a piece of a line. */
  | { readonly kind: "other" };

const COMPLAINTS = [
  /\bBUG\b/,
  /\bOops\b/,
  /Call Trace/,
  /\bstall/i,
  /lockup/i,
  /blocked for more than/,
  /segfault|general protection|double fault|invalid opcode|divide error/,
  /unable to handle/i,
  /Kernel panic/,
  /I\/O error|lost page write|Remounting/,
  /Out of memory|oom-kill|page allocation failure|Bad page/,
  /WARNING: CPU/,
  /Machine check|Hardware Error/,
];

/** The kernel's time stamp, with which each of its lines begins. */
const KERNEL_STAMP = /\[ *\d+\.\d{6}\]/;

/** The keys of a report in their order on the wire: first the counters, then the latency. */
const COUNTER_KEYS = [
  ["seq", "sequence"],
  ["ms", "guestMs"],
  ["pages", "pages"],
  ["writes", "writes"],
  ["verified", "verified"],
  ["sweeps", "sweeps"],
  ["errors", "errors"],
  ["diskwrites", "diskWrites"],
  ["disktrims", "diskTrims"],
  ["diskreads", "diskReads"],
  ["disksweeps", "diskSweeps"],
  ["diskerrors", "diskErrors"],
  ["ioerrors", "ioErrors"],
] as const satisfies readonly (readonly [string, keyof GuestCounters])[];
const LATENCY_KEYS = [
  ["diskp50us", "diskP50Us"],
  ["diskp99us", "diskP99Us"],
] as const satisfies readonly (readonly [string, keyof GuestLatency])[];
const REPORT_KEYS = [...COUNTER_KEYS, ...LATENCY_KEYS];

const SIGN = /^#(\d+)$/;
const READY = /^VF ready( \w+=\S+)+$/;
const REPORT = new RegExp(`^VF ${REPORT_KEYS.map(([key]) => `${key}=(\\d+)`).join(" ")}$`);

export function parseConsoleLine(text: string): ConsoleMessage {
  const sign = SIGN.exec(text);
  if (sign !== null) return { kind: "sign", sequence: Number(sign[1]) };
  const report = REPORT.exec(text);
  if (report !== null) return parseReport(report.slice(1).map(Number));
  if (READY.test(text)) return { kind: "ready", parameters: parseParameters(text) };
  if (text.startsWith("VF ERROR ")) return { kind: "error" };
  if (COMPLAINTS.some((complaint) => complaint.test(text))) return { kind: "complaint" };
  return { kind: KERNEL_STAMP.test(text) ? "kernel" : "other" };
}

function parseReport(values: readonly number[]): ConsoleMessage {
  const counters = COUNTER_KEYS.map(([, name], i) => [name, values[i]]);
  const latency = LATENCY_KEYS.map(([, name], i) => [name, values[COUNTER_KEYS.length + i]]);
  return {
    kind: "report",
    counters: Object.fromEntries(counters) as GuestCounters,
    latency: Object.fromEntries(latency) as GuestLatency,
  };
}

function parseParameters(text: string): ReadonlyMap<string, string> {
  const words = text.split(" ").slice(2);
  return new Map(
    words.map((word) => {
      const at = word.indexOf("=");
      return [word.slice(0, at), word.slice(at + 1)];
    }),
  );
}
