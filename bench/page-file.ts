// How fast a page file is written and read, and what that takes of a processor.

import { randomFillSync } from "node:crypto";
import { mkdtemp, open, rm } from "node:fs/promises";
import { loadavg, tmpdir } from "node:os";
import { join } from "node:path";
import { parseArgs } from "node:util";
import { pageFilePath } from "../packages/agent/src/page-file/page-file-place.ts";
import { PageFileReader } from "../packages/agent/src/page-file/page-file-reader.ts";
import { PageFileWriter } from "../packages/agent/src/page-file/page-file-writer.ts";

const USAGE = `Writes and reads page files; prints a table as Markdown.

  node bench/page-file.ts [--mib N] [--repeat N] [DIRECTORY...]

  --mib N      of pages (512)
  --repeat N   of which the medians count (3)
  DIRECTORY    where, such as an NFS mount; without any: /dev/shm and the directory for temporary files`;

const PAGE_BYTES = 4096;
const MIB = 2 ** 20;
/** Read one by one, as a guest's faults are. */
const FAULTS = 5000;

interface Figures {
  readonly mibPerSecond: number;
  /** Of all threads: unlike the rate, it depends little on what else the machine is busy with. */
  readonly cpuUsPerPage: number;
}

const { values, positionals } = parseArgs({
  allowPositionals: true,
  options: {
    mib: { type: "string", default: "512" },
    repeat: { type: "string", default: "3" },
    help: { type: "boolean" },
  },
});

if (values.help === true) console.log(USAGE);
else await main(positionals.length > 0 ? positionals : ["/dev/shm", tmpdir()]);

async function main(directories: readonly string[]): Promise<void> {
  const [mib, repeat] = [Number(values.mib), Number(values.repeat)];
  console.log(
    `${mib} MiB, medians of ${repeat}; load average before: ${loadavg()[0]?.toFixed(2)}\n`,
  );
  console.log(
    "| where | how | write MiB/s | CPU µs/page | read all MiB/s | CPU µs/page | one page µs | size MiB |",
  );
  console.log("|---|---|---|---|---|---|---|---|");
  for (const directory of directories) {
    const rows = [await median(repeat, () => plain(directory, mib))];
    for (const compress of [false, true]) {
      rows.push(await median(repeat, () => pageFile(directory, { mib, compress })));
    }
    const names = ["plain write and fsync", "page file", "page file, zstd"];
    for (const [i, row] of rows.entries()) {
      console.log(`| ${directory} | ${names[i] ?? ""} | ${row.map(formatCell).join(" | ")} |`);
    }
  }
}

/** One buffer written again and again, as a measure for what the directory can do. */
async function plain(directory: string, mib: number): Promise<number[]> {
  const path = join(await mkdtemp(join(directory, "bench-")), "plain");
  const buffer = randomFillSync(Buffer.alloc(MIB));
  const file = await open(path, "wx", 0o600);
  const wrote = await measure(mib, async () => {
    for (let i = 0; i < mib; i++) {
      await file.write(buffer, 0, MIB, i * MIB);
      if (i % 8 === 7) await file.sync();
    }
    await file.sync();
  });
  await file.close();
  await rm(join(path, ".."), { recursive: true });
  return [wrote.mibPerSecond, wrote.cpuUsPerPage];
}

async function pageFile(
  directory: string,
  { mib, compress }: { readonly mib: number; readonly compress: boolean },
): Promise<number[]> {
  const sharedDir = await mkdtemp(join(directory, "bench-"));
  const pages = mib * (MIB / PAGE_BYTES);
  const subject = {
    scope: "missing" as const,
    migrationId: "bench",
    epoch: 1,
    guestName: "bench",
    uuid: "00000000-0000-4000-8000-000000000000",
    blocks: [{ name: "pc.ram", lengthBytes: mib * MIB }],
  };
  const secret = Buffer.alloc(32, 1);
  const path = pageFilePath(sharedDir, subject);
  const content = contents();
  const writer = await PageFileWriter.create(path, subject, { secret, compress });
  let sizeMib = 0;
  const wrote = await measure(mib, async () => {
    for (let page = 0; page < pages; page++) {
      const bytes = content[page % content.length] ?? Buffer.alloc(PAGE_BYTES);
      if (!writer.add(page, bytes)) await writer.room();
    }
    const mark = await writer.close({ complete: true });
    sizeMib = (mark?.contentBytes ?? 0) / MIB;
  });
  const reader = await PageFileReader.open(path, subject, { secret });
  await reader.refresh();
  const read = await measure(mib, () => reader.verify());
  const sinceMs = performance.now();
  for (let i = 0; i < FAULTS; i++) await reader.read(Math.floor(Math.random() * pages));
  const faultUs = ((performance.now() - sinceMs) * 1000) / FAULTS;
  await reader.close();
  await rm(sharedDir, { recursive: true });
  return [
    wrote.mibPerSecond,
    wrote.cpuUsPerPage,
    read.mibPerSecond,
    read.cpuUsPerPage,
    faultUs,
    sizeMib,
  ];
}

/** Half of it noise, half of it something that is a third as long when it is compressed. */
function contents(): Buffer[] {
  return Array.from({ length: 1024 }, (_, i) => {
    const page = Buffer.alloc(PAGE_BYTES, `a page of text, the ${i}th `);
    randomFillSync(i % 2 === 0 ? page : page.subarray(0, PAGE_BYTES / 3));
    return page;
  });
}

async function measure(mib: number, work: () => Promise<unknown>): Promise<Figures> {
  const [sinceMs, cpuBefore] = [performance.now(), process.cpuUsage()];
  await work();
  const seconds = (performance.now() - sinceMs) / 1000;
  const { user, system } = process.cpuUsage(cpuBefore);
  const pages = mib * (MIB / PAGE_BYTES);
  return { mibPerSecond: mib / seconds, cpuUsPerPage: (user + system) / pages };
}

async function median(repeat: number, run: () => Promise<number[]>): Promise<number[]> {
  const runs: number[][] = [];
  for (let i = 0; i < repeat; i++) runs.push(await run());
  return (runs[0] ?? []).map((_, column) => {
    const sorted = runs.map((row) => row[column] ?? 0).sort((a, b) => a - b);
    return sorted[Math.floor(sorted.length / 2)] ?? 0;
  });
}

function formatCell(value: number, column: number): string {
  return value.toFixed(column === 1 || column === 3 ? 1 : 0);
}
