/* Random guests, and a reader that looks at random times: SEED= replays a run. */
import { expect, test } from "vitest";
import { MemoryPageFiles } from "./memory-page-files.ts";
import { PAGE_BYTES } from "./page-file-limits.ts";
import type { PageFileSubject } from "./header-codec.ts";
import { pagesOf } from "./header-codec.ts";
import { SAMPLE_SUBJECT, samplePage, sampleReader, sampleWriter } from "./sample-page-file.ts";
import { SeededRandom } from "./seeded-random.ts";

const seed = Number(process.env["SEED"] ?? Math.trunc(Math.random() * 2 ** 31));
const RUNS = 60;

function randomSubject(random: SeededRandom): PageFileSubject {
  const blocks = Array.from({ length: 1 + random.below(5) }, (_, i) => ({
    name: `/rom@block ${i} ü`.repeat(1 + random.below(3)),
    lengthBytes: (1 + random.below(40)) * PAGE_BYTES,
  }));
  return { ...SAMPLE_SUBJECT, blocks, epoch: random.below(2 ** 31) };
}

async function run(random: SeededRandom): Promise<void> {
  const subject = randomSubject(random);
  const pages = pagesOf(subject.blocks);
  const files = new MemoryPageFiles();
  files.onOperation = (operation) =>
    operation === "read" || operation === "write" ? 1 + random.below(9000) : undefined;
  const options = {
    compress: random.below(2) === 1,
    batchDataBytes: (PAGE_BYTES + 16) * (1 + random.below(6)),
    queueBytesMax: random.below(400_000),
    syncBytes: random.below(50_000),
  };
  const writer = await sampleWriter(files, options, subject);
  const reader = await sampleReader(files, {}, subject);
  const added = new Map<number, Buffer | "zero">();

  const look = async (): Promise<void> => {
    await reader.refresh();
    for (let i = 0; i < 4; i++) {
      const page = random.below(pages);
      const content = await reader.read(page);
      if (content !== null) expectSame(content, added.get(page));
    }
  };
  const order = random.shuffle(Array.from({ length: pages }, (_, page) => page));
  for (const page of order.slice(random.below(pages))) {
    if (added.has(page)) continue;
    if (random.below(4) === 0) {
      let count = 1;
      while (page + count < pages && !added.has(page + count) && random.below(3) > 0) count++;
      for (let i = 0; i < count; i++) added.set(page + i, "zero");
      await writer.addZeros(page, count);
    } else {
      const content = samplePage(page);
      added.set(page, Buffer.from(content));
      await writer.room();
      writer.add(page, content);
      // Its memory is the caller's again.
      content.fill(0xee);
    }
    if (random.below(6) === 0) await look();
    if (random.below(12) === 0) await writer.flush();
  }
  const mark = await writer.close({ complete: true });
  await reader.refresh();
  expect(await reader.complete).toEqual(mark);
  const dataPages = [...added.values()].filter((content) => content !== "zero").length;
  expect(mark).toMatchObject({ dataPages, zeroPages: added.size - dataPages });
  expect(await reader.verify()).toBe(dataPages);
  for (let page = 0; page < pages; page++) {
    const [content, expected] = [await reader.read(page), added.get(page) ?? null];
    if (expected === null) expect(content).toBeNull();
    else expectSame(content!, expected);
  }
}

function expectSame(content: Buffer | "zero", expected: Buffer | "zero" | undefined): void {
  const isSame =
    content === expected ||
    (content !== "zero" && expected instanceof Buffer && content.equals(expected));
  if (!isSame) expect.fail("a page is not as it was added");
}

test(`guests of any memory are read as they were written (SEED=${seed})`, async () => {
  const random = new SeededRandom(seed);
  for (let i = 0; i < RUNS; i++) await run(random);
});
