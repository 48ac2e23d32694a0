import { zstdDecompressSync } from "node:zlib";
import { beforeEach, describe, expect, it } from "vitest";
import { DiskHashes, ManualClock } from "@vmferry/agent";
import { ImageFile } from "@vmferry/block";
import { mkdtemp, open, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach } from "vitest";
import {
  BlockContent,
  decodeBlockAnswer,
  encodeBlockMessage,
  Urgency,
  type BlockAnswer,
} from "@vmferry/protocol";
import { BlockServer } from "./block-server.ts";

const UNIT_BYTES = 4096;
const UNITS = 300;
const SIZE = UNITS * UNIT_BYTES - 512;
const SEED_HEX = "0123456789abcdef";
const DISK = 1;

let directory: string;
let image: ImageFile;
let clock: ManualClock;
let hashes: DiskHashes;
let answers: BlockAnswer[];
/** While set, no answer is taken by the link. */
let linkWaits: Promise<void>[];

beforeEach(async () => {
  directory = await mkdtemp(join(tmpdir(), "block-server-"));
  const path = join(directory, "disk.raw");
  const file = await open(path, "w");
  await file.truncate(SIZE);
  // A hole, ten units of data, a unit of written zeros, a hole to the end but for its last unit.
  for (let unit = 100; unit < 110; unit++) {
    await file.write(Buffer.alloc(UNIT_BYTES, unit), 0, UNIT_BYTES, unit * UNIT_BYTES);
  }
  await file.write(Buffer.alloc(UNIT_BYTES), 0, UNIT_BYTES, 110 * UNIT_BYTES);
  await file.close();
  image = await ImageFile.open(path, { readOnly: true });
  clock = new ManualClock();
  hashes = newHashes();
  answers = [];
  linkWaits = [];
});

afterEach(async () => {
  await image.close();
  await rm(directory, { recursive: true, force: true });
});

function newHashes(): DiskHashes {
  const made = new DiskHashes({ sizeBytes: SIZE, unitBytes: UNIT_BYTES, seedHex: SEED_HEX });
  made.leaveOut(0, made.units);
  return made;
}

function serve(
  bandwidthBytesPerSecond: number | null = null,
  remaining = { units: UNITS },
  compression = false,
): BlockServer {
  return new BlockServer({
    disks: [null, { image, hashes, remaining }],
    compression,
    bandwidthBytesPerSecond,
    clock,
    link: {
      send: (message) => {
        answers.push(decodeBlockAnswer(message));
        return linkWaits.shift() ?? Promise.resolve();
      },
    },
    onFailed: (error) => {
      throw error;
    },
  });
}

function ask(
  server: BlockServer,
  first: number,
  count = 1,
  urgency: Urgency = Urgency.BACKGROUND,
): void {
  server.received(encodeBlockMessage({ kind: "ask", disk: DISK, urgency, first, count }));
}

async function answered(units: number): Promise<void> {
  await expect
    .poll(() => {
      let sum = 0;
      for (const answer of answers) if (answer.kind === "blocks") sum += answer.count;
      return sum;
    })
    .toBe(units);
}

describe("a block server", () => {
  it("compresses what becomes smaller by it", async () => {
    const server = serve(null, { units: UNITS }, true);
    ask(server, 100, 10);
    await answered(10);
    for (const answer of answers) {
      if (answer.kind !== "blocks") throw new Error("a block was asked for");
      expect(answer.content).toBe(BlockContent.ZSTD);
      const content = Buffer.alloc(UNIT_BYTES, answer.first);
      expect(zstdDecompressSync(answer.data).equals(content)).toBe(true);
      expect(answer.hash).toBe(hashes.hash(content));
    }
  });

  it("answers each unit once, with its content and its hash", async () => {
    const server = serve();
    ask(server, 100, 10);
    await answered(10);
    for (const answer of answers) {
      if (answer.kind !== "blocks") throw new Error("a block was asked for");
      expect(answer.content).toBe(BlockContent.RAW);
      expect(answer.data.equals(Buffer.alloc(UNIT_BYTES, answer.first))).toBe(true);
      expect(answer.hash).toBe(hashes.hash(Buffer.from(answer.data)));
    }
    expect(new Set(answers.map((answer) => answer.kind === "blocks" && answer.first)).size).toBe(
      10,
    );
  });

  it("counts what it has served, and the last unit when the dest says that it has all", async () => {
    const remaining = { units: UNITS };
    const server = serve(null, remaining);
    ask(server, 100, 10);
    await answered(10);
    expect(remaining.units).toBe(UNITS - 10);
    ask(server, 100, 2);
    await answered(12);
    expect(remaining.units).toBe(UNITS - 10);
    for (let unit = 0; unit < UNITS; unit += 50) ask(server, unit, Math.min(50, UNITS - unit));
    await answered(12 + UNITS);
    expect(remaining.units).toBe(1);
    const end = { kind: "end", disk: DISK, digest: hashes.digest() } as const;
    server.received(encodeBlockMessage(end));
    expect(remaining.units).toBe(0);
  });

  it("tells of a hole as far as it was asked for, and of zeros that take space", async () => {
    const server = serve();
    ask(server, 60, 51);
    await answered(51);
    const holes = answers.filter(
      (answer) => answer.kind === "blocks" && answer.content === BlockContent.HOLE,
    );
    // The workers begin with one each, and who comes next takes the rest of it.
    expect(holes.length).toBeLessThanOrEqual(5);
    expect(answers.length).toBe(holes.length + 11);
    expect(answers).toContainEqual(
      expect.objectContaining({ content: BlockContent.ZERO, first: 110, count: 1 }),
    );
  });

  it("tells of a hole to the end of the disk, whose last unit is shorter", async () => {
    const server = serve();
    ask(server, UNITS - 5, 5);
    await answered(5);
    ask(server, UNITS - 1, 1, Urgency.URGENT);
    await answered(6);
    expect(new Set(answers.map((each) => each.kind === "blocks" && each.content))).toEqual(
      new Set([BlockContent.HOLE]),
    );
    expect(answers.at(-1)).toMatchObject({
      content: BlockContent.HOLE,
      first: UNITS - 1,
      count: 1,
    });
  });

  it("answers what is urgent while the background waits for the bandwidth", async () => {
    const server = serve(UNIT_BYTES);
    ask(server, 100, 1);
    await answered(1);
    ask(server, 101, 8);
    ask(server, 109, 1, Urgency.URGENT);
    await answered(2);
    expect(answers[1]).toMatchObject({ first: 109 });
    await new Promise((resolve) => setTimeout(resolve, 20));
    expect(answers.length).toBe(2);
    // Both are paid for, the urgent one as well.
    clock.advance(1500);
    await new Promise((resolve) => setTimeout(resolve, 20));
    expect(answers.length).toBe(2);
    server.setBandwidth(null);
    await answered(10);
  });

  it("keeps a place for what is urgent when the link takes no more", async () => {
    const server = serve();
    const never = new Promise<void>(() => undefined);
    linkWaits = [never, never, never];
    ask(server, 100, 9);
    await answered(3);
    ask(server, 109, 1, Urgency.URGENT);
    await answered(4);
    expect(answers[3]).toMatchObject({ first: 109 });
  });

  it("says that it cannot read a unit, and goes on", async () => {
    const server = serve();
    await image.close();
    ask(server, 100, 2);
    await answered(2);
    expect(answers).toMatchObject([
      { content: BlockContent.UNREADABLE, hash: 0n },
      { content: BlockContent.UNREADABLE, hash: 0n },
    ]);
  });

  it.each([false, true])(
    "judges what the dest has taken, of an agent that has forgotten all of it: %s",
    async (forgets) => {
      const taken = newHashes();
      for (let unit = 0; unit < UNITS; unit++) {
        if (unit === 7 || (unit > 103 && unit < 106)) continue;
        const offset = unit * UNIT_BYTES;
        taken.set(unit, taken.hash(await image.read(offset, taken.lengthOf(unit))));
      }
      const server = serve();
      if (!forgets) {
        for (let unit = 0; unit < UNITS; unit += 50) ask(server, unit, Math.min(50, UNITS - unit));
        await answered(UNITS);
      }
      answers = [];
      const runs = [
        { first: 7, count: 1 },
        { first: 104, count: 2 },
      ];
      const judge = (digest: string): void => {
        server.received(encodeBlockMessage({ kind: "kept", disk: DISK, runs: runs.slice(0, 1) }));
        server.received(encodeBlockMessage({ kind: "kept", disk: DISK, runs: runs.slice(1) }));
        server.received(encodeBlockMessage({ kind: "end", disk: DISK, digest }));
      };
      judge(taken.digest());
      await expect.poll(() => answers).toEqual([{ kind: "verdict", disk: DISK, equal: true }]);
      taken.set(200, 12345n);
      judge(taken.digest());
      await expect.poll(() => answers[1]).toEqual({ kind: "verdict", disk: DISK, equal: false });
    },
  );

  it("refuses a dest that asks for what is not there, or for too much", () => {
    const server = serve();
    for (const [first, count] of [
      [UNITS, 1],
      [UNITS - 1, 2],
    ] as const) {
      expect(() => {
        ask(server, first, count);
      }).toThrow("unit outside its disk");
    }
    const other = { kind: "ask", disk: 0, urgency: Urgency.URGENT, first: 0, count: 1 } as const;
    expect(() => {
      server.received(encodeBlockMessage(other));
    }).toThrow("disk that is not lazy");
    const kept = { kind: "kept", disk: DISK, runs: [{ first: UNITS - 1, count: 2 }] } as const;
    expect(() => {
      server.received(encodeBlockMessage(kept));
    }).toThrow("unit outside its disk");
    const waiting = serve(1);
    expect(() => {
      for (let i = 0; i < 600; i++) ask(waiting, 0, 64);
    }).toThrow("too many units at once");
  });
});
