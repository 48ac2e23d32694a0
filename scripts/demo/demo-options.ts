import { parseArgs } from "node:util";
import { AgentError, messageOf } from "@vmferry/core";
import { parseBytesPerSecond, parseDurationMs } from "@vmferry/cli";

const MEMORY_MIB_DEFAULT = 512;
const MEMORY_DEFAULT = "256M";
const DISK_DEFAULT = "256M";
const DISK_RATE_DEFAULT = "200";
/** So that the guest has soon looked at all of its records, and the demo need not wait for it. */
const DISK_SWEEP_READS = "4";
/** What the guest's kernel, its initramfs and the workload's own tables take. */
const HEADROOM_MIB = 128;

interface Form {
  readonly pattern: RegExp;
  readonly expected: string;
}

// Ranges are the workload's to check: it says what is wrong and does not begin.
const RATE: Form = { pattern: /^(\d+|max)$/, expected: "a number of pages, or max" };
const DISK_RATE: Form = { pattern: /^([1-9]\d*|max)$/, expected: "a number of writes, or max" };
const HOT: Form = { pattern: /^\d+:\d+$/, expected: "two percentages such as 90:2" };
const BYTES: Form = { pattern: /^\d+$/, expected: "a number of bytes" };

export const USAGE = `Boots a real Linux guest under QEMU and migrates it between two local agents.

  npm run demo -- [options]

  --memory MIB       memory of the guest (${MEMORY_MIB_DEFAULT})
  --mem SIZE         memory that its workload rewrites and checks, such as 1G (${MEMORY_DEFAULT})
  --rate PAGES       pages that it rewrites a second, or max (2000)
  --hot W:P          W percent of the rewrites go to P percent of the pages (90:2)
  --bytes BYTES      how much of a page a rewrite changes (4096)
  --disk SIZE        size of its disk, such as 1G; half of it holds data; 0: no disk (${DISK_DEFAULT})
  --no-disk          the same as --disk 0
  --diskrate WRITES  writes to the disk a second, or max (${DISK_RATE_DEFAULT})
  --bandwidth RATE   limit of the migration, such as 100MB/s or 1Gbit/s (none)
  --downtime TIME    how long the guest may stand still (300ms)
  --keep             leave everything running afterwards until Ctrl-C, to look around
  --json             print the final objects as the last line, as JSON
`;

export interface DemoOptions {
  readonly memoryMib: number;
  /** 0 = the guest has no disk. */
  readonly diskMib: number;
  readonly workload: Readonly<Record<string, string>>;
  readonly limits: Readonly<Record<string, number>>;
  readonly keep: boolean;
  readonly json: boolean;
  readonly help: boolean;
}

export class DemoOptionError extends AgentError<{ readonly code: "demo-option-invalid" }> {
  constructor(message: string) {
    super(message, { code: "demo-option-invalid" });
  }
}

/** Throws DemoOptionError, with the option's name in its message. */
export function parseDemoOptions(words: readonly string[]): DemoOptions {
  const values = parseWords(words);
  const memoryMib = parsed(values, "memory", parseMib) ?? MEMORY_MIB_DEFAULT;
  const { mem = MEMORY_DEFAULT, rate, hot, bytes } = values;
  const workloadMib = parsed({ mem }, "mem", parseSizeMib) ?? 0;
  if (workloadMib + HEADROOM_MIB > memoryMib) {
    const free = `the guest needs ${HEADROOM_MIB} MiB for itself`;
    throw new DemoOptionError(`--mem ${mem} does not fit into --memory ${memoryMib}: ${free}`);
  }
  const downtimeMsMax = parsed(values, "downtime", parseDurationMs);
  const bandwidthBytesPerSecond = parsed(values, "bandwidth", parseBytesPerSecond);
  const diskMib = parseDiskMib(values);
  return {
    memoryMib,
    diskMib,
    workload: {
      mem,
      ...diskWorkload(diskMib, values),
      ...(rate === undefined ? {} : { rate: matching("rate", rate, RATE) }),
      ...(hot === undefined ? {} : { hot: matching("hot", hot, HOT) }),
      ...(bytes === undefined ? {} : { bytes: matching("bytes", bytes, BYTES) }),
    },
    limits: {
      ...(downtimeMsMax === undefined ? {} : { downtimeMsMax }),
      ...(bandwidthBytesPerSecond === undefined ? {} : { bandwidthBytesPerSecond }),
    },
    keep: values.keep,
    json: values.json,
    help: values.help,
  };
}

function parseDiskMib(values: Values): number {
  const { disk = values["no-disk"] ? "0" : DISK_DEFAULT } = values;
  if (disk === "0") return 0;
  if (values["no-disk"]) throw new DemoOptionError(`--disk ${disk} contradicts --no-disk`);
  return parsed({ disk }, "disk", parseSizeMib) ?? 0;
}

function diskWorkload(diskMib: number, { diskrate }: Values): Readonly<Record<string, string>> {
  if (diskMib > 0) {
    return {
      diskrate: matching("diskrate", diskrate ?? DISK_RATE_DEFAULT, DISK_RATE),
      disksweep: DISK_SWEEP_READS,
    };
  }
  if (diskrate !== undefined) throw new DemoOptionError("--diskrate is for a guest with a disk");
  return {};
}

interface Values {
  readonly memory?: string;
  readonly mem?: string;
  readonly rate?: string;
  readonly hot?: string;
  readonly bytes?: string;
  readonly disk?: string;
  readonly "no-disk": boolean;
  readonly diskrate?: string;
  readonly bandwidth?: string;
  readonly downtime?: string;
  readonly keep: boolean;
  readonly json: boolean;
  readonly help: boolean;
}

function parseWords(words: readonly string[]): Values {
  try {
    return parseArgs({
      args: [...words],
      options: {
        memory: { type: "string" },
        mem: { type: "string" },
        rate: { type: "string" },
        hot: { type: "string" },
        bytes: { type: "string" },
        disk: { type: "string" },
        "no-disk": { type: "boolean", default: false },
        diskrate: { type: "string" },
        bandwidth: { type: "string" },
        downtime: { type: "string" },
        keep: { type: "boolean", default: false },
        json: { type: "boolean", default: false },
        help: { type: "boolean", short: "h", default: false },
      },
    }).values;
  } catch (error) {
    throw new DemoOptionError(messageOf(error));
  }
}

function parsed<Name extends keyof Values>(
  values: Pick<Values, Name>,
  name: Name,
  parse: (text: string) => number,
): number | undefined {
  const text = values[name];
  if (typeof text !== "string") return undefined;
  try {
    return parse(text);
  } catch (error) {
    throw new DemoOptionError(`--${name}: ${messageOf(error)}`);
  }
}

function parseMib(text: string): number {
  if (/^[1-9]\d{1,6}$/.test(text)) return Number(text);
  throw new RangeError(`"${text}" is no number of mebibytes such as 512`);
}

function parseSizeMib(text: string): number {
  const [, number, unit] = /^([1-9]\d{0,6})([MG])$/.exec(text) ?? [];
  if (number === undefined) throw new RangeError(`"${text}" is no size such as 256M or 1G`);
  return Number(number) * (unit === "G" ? 1024 : 1);
}

function matching(name: string, text: string, { pattern, expected }: Form): string {
  if (pattern.test(text)) return text;
  throw new DemoOptionError(`--${name}: "${text}" is not ${expected}`);
}
