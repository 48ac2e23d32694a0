/** What somebody with the share, and without the key, can do to a file; and what a key's holder. */
import { describe, expect, test, vi } from "vitest";
import { ManualClock } from "../events/manual-clock.ts";
import { MemoryPageFiles } from "./memory-page-files.ts";
import { PAGE_BYTES } from "./page-file-limits.ts";
import { PageFileError } from "./page-file-error.ts";
import {
  batchBytes,
  headerBytes,
  SAMPLE_SUBJECT,
  sampleFile,
  samplePage,
  sampleReader,
} from "./sample-page-file.ts";

// Some ten thousand files, and the machine may be busy.
vi.setConfig({ testTimeout: 60_000 });

const HEADER = await headerBytes();
const BATCH = batchBytes(1);
const PAGES = [1, 2, 3, 4, 40];
const WRITTEN = new Map(PAGES.map((page) => [page, samplePage(page)]));

interface Outcome {
  readonly isComplete: boolean;
  /** Of the pages asked for, those that were given. */
  readonly given: number[];
  readonly code: string | null;
}

/**
 * What a reader makes of it in the end, when everything had its time. Fails where a page is given
 * that is not as it was written.
 */
async function readAll(bytes: Buffer): Promise<Outcome> {
  const clock = new ManualClock();
  const given: number[] = [];
  let code: string | null = null;
  try {
    const reader = await sampleReader(new MemoryPageFiles(bytes), { clock });
    const tried = async (work: () => Promise<unknown>): Promise<void> => {
      try {
        await work();
      } catch (error) {
        if (!(error instanceof PageFileError)) throw error;
        code ??= error.code;
      }
    };
    await tried(() => reader.refresh());
    clock.advance(60_000);
    await tried(() => reader.refresh());
    for (const page of PAGES) {
      await tried(async () => {
        const content = await reader.read(page);
        if (content === null) return;
        const isGood =
          page === 40
            ? content === "zero"
            : content !== "zero" && content.equals(WRITTEN.get(page)!);
        if (!isGood) throw new Error(`page ${page} is given as it was never written`);
        given.push(page);
      });
    }
    return { isComplete: reader.state.phase === "complete", given, code };
  } catch (error) {
    if (!(error instanceof PageFileError)) throw error;
    return { isComplete: false, given, code: error.code };
  }
}

const file = await sampleFile([[1], [2, -40], [4]], { compress: true });
const plain = await sampleFile([[1], [2], [3]]);

/** The parts of `plain`. */
function parts(bytes: Buffer): { header: Buffer; batches: Buffer[]; mark: Buffer } {
  const batches = [0, 1, 2].map((i) =>
    bytes.subarray(HEADER + i * BATCH, HEADER + (i + 1) * BATCH),
  );
  return { header: bytes.subarray(0, HEADER), batches, mark: bytes.subarray(HEADER + 3 * BATCH) };
}

test("the file that is forged here is a good one", async () => {
  expect(await readAll(file)).toEqual({ isComplete: true, given: [1, 2, 4, 40], code: null });
  const { header, batches, mark } = parts(plain);
  expect(Buffer.concat([header, ...batches, mark])).toEqual(plain);
  expect(await readAll(plain)).toEqual({ isComplete: true, given: [1, 2, 3], code: null });
});

test("a changed byte, wherever it is, costs a page or the end, and gives no other page", async () => {
  const whole = await readAll(file);
  for (let at = 0; at < file.length; at++) {
    const flipped = Buffer.from(file);
    flipped[at]! ^= 1 << (at % 8);
    const outcome = await readAll(flipped);
    const isRefused = outcome.given.length < whole.given.length || !outcome.isComplete;
    if (!isRefused) expect.fail(`nothing of byte ${at} was noticed`);
    // What is said, unless a length now leads beyond the end: that might still come.
    if (outcome.code === null && outcome.isComplete) expect.fail(`byte ${at} is not told of`);
  }
});

test("every truncation is no complete file", async () => {
  for (let length = 0; length < file.length; length++) {
    const outcome = await readAll(file.subarray(0, length));
    if (outcome.isComplete) expect.fail(`${length} bytes are complete`);
    if (length < HEADER && outcome.code !== "page-file-truncated") expect.fail(`${length} bytes`);
  }
});

describe("batches", () => {
  const { header, batches, mark } = parts(plain);
  const [a, b, c] = batches;

  test.each([
    ["that changed places", [b!, a!, c!], []],
    ["that are played again", [a!, a!, b!, c!], [1]],
    ["of which one is left out", [a!, c!], [1]],
    ["that are played again at the end", [a!, b!, c!, b!], [1, 2, 3]],
  ])("%s are refused from there on", async (_what, order, given) => {
    for (const end of [[], [mark]]) {
      const outcome = await readAll(Buffer.concat([header, ...order, ...end]));
      expect(outcome).toEqual({ isComplete: false, given, code: "page-file-damaged" });
    }
  });

  test.each([
    ["file of the same migration", {}],
    ["epoch", { subject: { ...SAMPLE_SUBJECT, epoch: 8 } }],
    ["guest", { subject: { ...SAMPLE_SUBJECT, guestName: "omed" } }],
  ])("of another %s are refused, and so are pages, mark and header", async (_what, options) => {
    const other = parts(await sampleFile([[1], [2], [3]], options));
    const refused = { isComplete: false, code: "page-file-damaged" };
    const batch = Buffer.concat([header, a!, other.batches[1]!, c!, mark]);
    expect(await readAll(batch)).toEqual({ ...refused, given: [1] });
    const page = Buffer.from(plain);
    other.batches[1]!.copy(page, HEADER + BATCH + 32, 32, 32 + PAGE_BYTES + 16);
    expect(await readAll(page)).toMatchObject({ given: [1, 3], code: "page-file-damaged" });
    const end = Buffer.concat([header, ...batches, other.mark]);
    expect(await readAll(end)).toEqual({ ...refused, given: [1, 2, 3] });
    const early = Buffer.concat([header, a!, b!, mark]);
    expect(await readAll(early)).toEqual({ ...refused, given: [1, 2] });
    if (other.header.length === HEADER && Object.keys(options).length === 0) {
      const start = Buffer.concat([other.header, ...batches, mark]);
      expect(await readAll(start)).toEqual({ ...refused, given: [] });
    }
  });

  test("with pages exchanged among them lose those", async () => {
    const swapped = Buffer.from(plain);
    const at = (i: number): number => HEADER + i * BATCH + 32;
    plain.copy(swapped, at(0), at(1), at(1) + PAGE_BYTES + 16);
    plain.copy(swapped, at(1), at(0), at(0) + PAGE_BYTES + 16);
    expect(await readAll(swapped)).toMatchObject({ given: [3], code: "page-file-damaged" });
  });
});
