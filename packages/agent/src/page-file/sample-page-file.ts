/** For tests: a guest of few pages, and files of them. */
import { createHash } from "node:crypto";
import { Deferred } from "@vmferry/core";
import type { PageFileSubject } from "./header-codec.ts";
import { MemoryPageFiles, type PageFileOperation } from "./memory-page-files.ts";
import { PAGE_BYTES } from "./page-file-limits.ts";
import { PageFileReader, type PageFileReaderOptions } from "./page-file-reader.ts";
import { PageFileWriter, type PageFileWriterOptions } from "./page-file-writer.ts";

export const SAMPLE_PATH = "/share/vmferry-pages/m1.7.pages";
export const SAMPLE_SECRET = Buffer.alloc(32, 0x5e);

export const SAMPLE_SUBJECT: PageFileSubject = {
  scope: "missing",
  migrationId: "m1",
  epoch: 7,
  guestName: "demo",
  uuid: "0c7d8f7e-6a51-4a51-9c1e-70b2bbb6030f",
  blocks: [
    { name: "pc.ram", lengthBytes: 60 * PAGE_BYTES },
    { name: "vga.vram", lengthBytes: 4 * PAGE_BYTES },
  ],
};

/** The content of a page by its number: of odd ones it is noise, of even ones it compresses. */
export function samplePage(page: number): Buffer {
  const noise = createHash("sha256").update(`page ${page}`).digest();
  const bytes = Buffer.alloc(PAGE_BYTES);
  if (page % 2 === 0) noise.copy(bytes, page % 4000);
  else
    for (let at = 0; at < PAGE_BYTES; at += 32)
      noise.map((b, i) => b ^ (at >> 5) ^ i).forEach((b, i) => (bytes[at + i] = b));
  return bytes;
}

export async function sampleWriter(
  files: MemoryPageFiles,
  options: Partial<PageFileWriterOptions> = {},
  subject: PageFileSubject = SAMPLE_SUBJECT,
): Promise<PageFileWriter> {
  const all = { secret: SAMPLE_SECRET, files, ...options };
  return await PageFileWriter.create(SAMPLE_PATH, subject, all);
}

export async function sampleReader(
  files: MemoryPageFiles,
  options: Partial<PageFileReaderOptions> = {},
  subject: PageFileSubject = SAMPLE_SUBJECT,
): Promise<PageFileReader> {
  const all = { secret: SAMPLE_SECRET, files, ...options };
  return await PageFileReader.open(SAMPLE_PATH, subject, all);
}

/** A complete file: each list is a batch of pages, negative numbers (and -0) being zero ones. */
export async function sampleFile(
  batches: readonly (readonly number[])[],
  options: Partial<PageFileWriterOptions> & { readonly subject?: PageFileSubject } = {},
): Promise<Buffer> {
  const files = new MemoryPageFiles();
  const writer = await sampleWriter(files, options, options.subject);
  for (const batch of batches) {
    for (const page of batch) {
      if (page < 0) await writer.addZeros(-page, 1);
      else if (!writer.add(page, samplePage(page))) await writer.room();
    }
    await writer.flush();
  }
  await writer.close({ complete: true });
  return files.bytes!;
}

/** Of a batch of so many pages, none of them zero or compressed: head, pages, index, tag. */
export function batchBytes(pages: number): number {
  return 32 + pages * (PAGE_BYTES + 16) + Math.ceil((pages * 12) / 16) * 16 + 16;
}

/** Of the sample guest's files. */
export async function headerBytes(): Promise<number> {
  return (await sampleFile([])).length - (32 + 64 + 16);
}

/** The next call of that kind hangs; it goes on when `goesOn` is resolved. */
export function hangNext(
  files: MemoryPageFiles,
  operation: PageFileOperation,
): { readonly hangs: Promise<void>; readonly goesOn: Deferred } {
  const [hangs, goesOn] = [new Deferred(), new Deferred()];
  const before = files.onOperation;
  files.onOperation = async (one) => {
    if (one !== operation) return await before(one);
    files.onOperation = before;
    hangs.resolve();
    await goesOn.promise;
    return undefined;
  };
  return { hangs: hangs.promise, goesOn };
}
