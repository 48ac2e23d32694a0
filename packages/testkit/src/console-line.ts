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
  readonly diskReads: number;
  readonly diskSweeps: number;
  readonly diskErrors: number;
  readonly ioErrors: number;
}

export type ConsoleMessage =
  | { readonly kind: "sign"; readonly sequence: number }
  | { readonly kind: "report"; readonly counters: GuestCounters }
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

/** The keys of a report in their order on the wire. */
const COUNTER_KEYS = [
  ["seq", "sequence"],
  ["ms", "guestMs"],
  ["pages", "pages"],
  ["writes", "writes"],
  ["verified", "verified"],
  ["sweeps", "sweeps"],
  ["errors", "errors"],
  ["diskwrites", "diskWrites"],
  ["diskreads", "diskReads"],
  ["disksweeps", "diskSweeps"],
  ["diskerrors", "diskErrors"],
  ["ioerrors", "ioErrors"],
] as const satisfies readonly (readonly [string, keyof GuestCounters])[];

const SIGN = /^#(\d+)$/;
const READY = /^VF ready( \w+=\S+)+$/;
const REPORT = new RegExp(`^VF ${COUNTER_KEYS.map(([key]) => `${key}=(\\d+)`).join(" ")}$`);

export function parseConsoleLine(text: string): ConsoleMessage {
  const sign = SIGN.exec(text);
  if (sign !== null) return { kind: "sign", sequence: Number(sign[1]) };
  const report = REPORT.exec(text);
  if (report !== null) return { kind: "report", counters: parseCounters(report.slice(1)) };
  if (READY.test(text)) return { kind: "ready", parameters: parseParameters(text) };
  if (text.startsWith("VF ERROR ")) return { kind: "error" };
  if (COMPLAINTS.some((complaint) => complaint.test(text))) return { kind: "complaint" };
  return { kind: KERNEL_STAMP.test(text) ? "kernel" : "other" };
}

function parseCounters(values: readonly string[]): GuestCounters {
  const entries = COUNTER_KEYS.map(([, name], i) => [name, Number(values[i])]);
  return Object.fromEntries(entries) as GuestCounters;
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
