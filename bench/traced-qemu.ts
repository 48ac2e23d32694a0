// How long vCPUs wait for pages in post-copy, seen by the one who knows for every method alike: the
// dest's QEMU. It writes down each fault when its fault thread reads it, and each page when it is in
// the guest's memory; between the two lies all that a method does to fetch a page.

import { createReadStream } from "node:fs";
import { chmod, writeFile } from "node:fs/promises";
import { createInterface } from "node:readline";

const FAULT = "postcopy_ram_fault_thread_request";
const PLACED = ["postcopy_place_page", "postcopy_place_page_zero"];
/** Of an address: pages of 4 KiB. */
const PAGE_DIGITS = 3;

/** `123@1764187200.123456:postcopy_place_page host=0x7f…`, the time of day in front. */
const LINE = new RegExp(`@(\\d+)\\.(\\d{6}):(${[FAULT, ...PLACED].join("|")}) .*?0x([0-9a-f]+)`);

/** Faults that a vCPU waited for, by the time that each took. */
export interface FaultFigures {
  readonly count: number;
  /** Null where there were none. */
  readonly p50Ms: number | null;
  readonly p99Ms: number | null;
  readonly maxMs: number | null;
}

/** Writes a program to `path` that becomes QEMU and writes its faults to `logPath`. */
export async function writeTracedQemu(
  path: string,
  { qemu, logPath }: { readonly qemu: string; readonly logPath: string },
): Promise<void> {
  const traces = [FAULT, ...PLACED].map((name) => `-trace ${name}`).join(" ");
  // Only the one that waits for a guest: a QEMU that is asked what it can would empty the log.
  const lines = [
    "#!/bin/sh",
    `case " $* " in *" -incoming "*) exec '${qemu}' "$@" -D '${logPath}' ${traces} ;; esac`,
    `exec '${qemu}' "$@"`,
  ];
  await writeFile(path, `${lines.join("\n")}\n`);
  await chmod(path, 0o700);
}

export function readFaults(logPath: string): Promise<FaultFigures> {
  return faultFiguresOf(createInterface({ input: createReadStream(logPath) }));
}

/** Of the lines of QEMU's trace. A page that was there before its fault was read is no wait. */
export async function faultFiguresOf(lines: AsyncIterable<string>): Promise<FaultFigures> {
  const sinceUs = new Map<string, number>();
  const placed = new Set<string>();
  const waitsUs: number[] = [];
  for await (const line of lines) {
    const [, seconds, micros, event, address] = LINE.exec(line) ?? [];
    if (address === undefined) continue;
    const atUs = Number(seconds) * 1e6 + Number(micros);
    const page = address.slice(0, -PAGE_DIGITS);
    if (event === FAULT) {
      if (!placed.has(page) && !sinceUs.has(page)) sinceUs.set(page, atUs);
      continue;
    }
    placed.add(page);
    const askedUs = sinceUs.get(page);
    if (askedUs === undefined) continue;
    sinceUs.delete(page);
    waitsUs.push(atUs - askedUs);
  }
  waitsUs.sort((a, b) => a - b);
  const at = (share: number): number | null => {
    const us = waitsUs[Math.max(0, Math.ceil(share * waitsUs.length) - 1)];
    return us === undefined ? null : us / 1000;
  };
  return { count: waitsUs.length, p50Ms: at(0.5), p99Ms: at(0.99), maxMs: at(1) };
}
