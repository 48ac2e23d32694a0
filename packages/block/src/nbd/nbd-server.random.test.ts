import fc from "fast-check";
import { afterEach, beforeEach, describe, expect, test } from "vitest";
import { NbdTestBench } from "./nbd-test-bench.ts";
import {
  rawHandshake,
  rawInfoData,
  rawMetaData,
  rawOption,
  rawRequest,
  u32,
  type RawNbdClient,
  type RequestFields,
} from "./raw-nbd-client.ts";

/* Random sessions, good and damaged: SEED= replays a run. */

const seed = Number(process.env["SEED"] ?? Math.trunc(Math.random() * 2 ** 31));
const SIZE_BYTES = 96 * 1024 + 100;

const READ = 0;
const WRITE = 1;
const FLUSH = 3;
const TRIM = 4;
const CACHE = 5;
const WRITE_ZEROES = 6;
const BLOCK_STATUS = 7;

/** FUA for what writes; NO_HOLE, DF and REQ_ONE where each belongs. */
const CONCERNING_FLAGS: ReadonlyMap<number, number> = new Map([
  [READ, 4],
  [TRIM, 1],
  [WRITE_ZEROES, 3],
  [BLOCK_STATUS, 8],
]);

let bench: NbdTestBench;

beforeEach(async () => {
  bench = await NbdTestBench.open({}, SIZE_BYTES);
});

afterEach(() => bench.close());

const anyRange: fc.Arbitrary<{ readonly offset: number; readonly length: number }> = fc
  .tuple(fc.nat(SIZE_BYTES - 1), fc.oneof(fc.nat(600), fc.nat(SIZE_BYTES)))
  .map(([offset, length]) => ({
    offset,
    length: Math.min(length + 1, SIZE_BYTES - offset),
  }));

const anyGoodRequest: fc.Arbitrary<RequestFields> = fc
  .tuple(
    anyRange,
    fc.constantFrom(
      READ,
      READ,
      WRITE,
      WRITE,
      WRITE,
      FLUSH,
      TRIM,
      CACHE,
      WRITE_ZEROES,
      BLOCK_STATUS,
    ),
    fc.nat(255),
    fc.boolean(),
  )
  .map(([range, command, fill, flag]) => {
    if (command === FLUSH) return { command, length: 0 };
    if (command === WRITE) {
      const payload = Buffer.alloc(range.length, fill);
      return { command, offset: range.offset, payload, flags: flag ? 1 : 0 };
    }
    const flags = CONCERNING_FLAGS.get(command) ?? 0;
    return { command, ...range, flags: flag ? flags : 0 };
  });

/** What a disk holds after a request, the obvious way. Here trimmed bytes read as zeroes. */
function applyTo(twin: Buffer, { command, offset, length, payload }: RequestFields): void {
  const at = Number(offset ?? 0);
  if (command === WRITE) payload!.copy(twin, at);
  if (command === TRIM || command === WRITE_ZEROES) twin.fill(0, at, at + length!);
}

/** The content that the chunks of a reply to READ say, and that they cover all of it once. */
async function readReply(client: RawNbdClient, fields: RequestFields): Promise<Buffer> {
  const content = Buffer.alloc(fields.length!, 0xee);
  let covered = 0;
  for (;;) {
    const reply = await client.reply();
    if (reply.kind !== "chunk" || reply.type > 2) throw new Error("no content");
    const at = Number(reply.payload.readBigUInt64BE(0)) - Number(fields.offset);
    if (reply.type === 1) covered += reply.payload.copy(content, at, 8);
    else {
      const hole = reply.payload.readUInt32BE(8);
      content.fill(0, at, at + hole);
      covered += hole;
    }
    if (reply.flags === 1) break;
  }
  expect(covered).toBe(fields.length);
  return content;
}

async function checkReply(
  client: RawNbdClient,
  fields: RequestFields,
  twin: Buffer,
): Promise<void> {
  const offset = Number(fields.offset ?? 0);
  if (fields.command === READ) {
    const content = await readReply(client, fields);
    expect(content.equals(twin.subarray(offset, offset + fields.length!))).toBe(true);
    return;
  }
  const reply = await client.reply();
  if (fields.command !== BLOCK_STATUS) {
    expect(reply).toMatchObject({ kind: "simple", errno: 0 });
    return;
  }
  if (reply.kind !== "chunk" || reply.type !== 5) throw new Error("no block status");
  let at = offset;
  for (let i = 4; i < reply.payload.length; i += 8) {
    const length = reply.payload.readUInt32BE(i);
    const isZero = reply.payload.readUInt32BE(i + 4) === 3;
    expect(length).toBeGreaterThan(0);
    if (isZero) expect(twin.subarray(at, at + length).equals(Buffer.alloc(length))).toBe(true);
    at += length;
  }
  expect(at).toBeLessThanOrEqual(offset + fields.length!);
}

describe(`random sessions (seed ${seed})`, () => {
  test("of good requests leave the disk as a plain buffer would be", async () => {
    const client = await bench.attach({ blockStatus: true });
    const twin = Buffer.alloc(SIZE_BYTES);
    await fc.assert(
      fc.asyncProperty(fc.array(anyGoodRequest, { maxLength: 30 }), async (requests) => {
        for (const fields of requests) {
          client.request(fields);
          applyTo(twin, fields);
          await checkReply(client, fields, twin);
        }
        expect(bench.device.content.equals(twin)).toBe(true);
      }),
      { seed, numRuns: 150 },
    );
  });

  test("in random pieces are answered one reply for one request", async () => {
    const session = fc.tuple(
      fc.array(anyGoodRequest, { minLength: 1, maxLength: 20 }),
      fc.array(fc.integer({ min: 1, max: 5000 }), { minLength: 1, maxLength: 20 }),
    );
    await fc.assert(
      fc.asyncProperty(session, async ([requests, pieceBytes]) => {
        // Simple replies, and no data: each is of 16 bytes.
        const silent = requests.filter(
          ({ command }) => command !== READ && command !== BLOCK_STATUS,
        );
        const bytes = Buffer.concat(
          silent.map((fields, index) =>
            rawRequest({ ...fields, cookie: BigInt(index), flags: (fields.flags ?? 0) & 1 }),
          ),
        );
        const client = await bench.attach();
        for (let at = 0, i = 0; at < bytes.length; i++) {
          const end = at + pieceBytes[i % pieceBytes.length]!;
          client.send(bytes.subarray(at, end));
          at = end;
          await new Promise((resolve) => setImmediate(resolve));
        }
        const cookies = new Set<bigint>();
        while (cookies.size < silent.length) cookies.add((await client.reply()).cookie);
        expect([...cookies].every((cookie) => cookie < BigInt(silent.length))).toBe(true);
        client.end();
      }),
      { seed, numRuns: 100 },
    );
  });

  const goodSessions: readonly Buffer[] = [
    Buffer.concat([
      rawHandshake({ blockStatus: true }),
      rawRequest({ command: WRITE, payload: Buffer.alloc(300, 1) }),
      rawRequest({ command: READ, length: 512 }),
      rawRequest({ command: BLOCK_STATUS, length: 8192 }),
      rawRequest({ command: 2 }),
    ]),
    Buffer.concat([
      u32(3),
      rawOption(3),
      rawOption(6, rawInfoData("disk0", 1, 3)),
      rawOption(8),
      rawOption(9, rawMetaData("disk0")),
      rawOption(10, rawMetaData("disk0", "base:allocation", "qemu:dirty-bitmap:a")),
      rawOption(5),
      rawOption(7, rawInfoData("")),
      rawRequest({ command: TRIM, length: 4096 }),
    ]),
    Buffer.concat([u32(1), rawOption(1), rawRequest({ command: CACHE, length: 5 })]),
  ];

  /** Bytes changed, cut out, doubled, or put in. */
  const anyDamage = fc.array(
    fc.record({
      kind: fc.constantFrom("change", "cut", "double", "insert"),
      at: fc.double({ min: 0, max: 1, noNaN: true }),
      bytes: fc.oneof(
        fc.uint8Array({ minLength: 1, maxLength: 8 }),
        fc.constantFrom(
          Uint8Array.of(0xff, 0xff, 0xff, 0xff),
          Uint8Array.of(0x7f, 0xff, 0xff, 0xff),
          Uint8Array.of(0, 0, 0, 0, 0, 0, 0, 0),
        ),
      ),
    }),
    { minLength: 1, maxLength: 4 },
  );

  function damaged(
    session: Buffer,
    damage: typeof anyDamage extends fc.Arbitrary<infer T> ? T : never,
  ): Buffer {
    let bytes = Buffer.from(session);
    for (const { kind, at, bytes: piece } of damage) {
      const from = Math.floor(at * bytes.length);
      const to = Math.min(from + piece.length, bytes.length);
      const [before, middle, after] = [
        bytes.subarray(0, from),
        bytes.subarray(from, to),
        bytes.subarray(to),
      ];
      if (kind === "change") bytes = Buffer.concat([before, piece.subarray(0, to - from), after]);
      if (kind === "cut") bytes = Buffer.concat([before, after]);
      if (kind === "double") bytes = Buffer.concat([before, middle, middle, after]);
      if (kind === "insert") bytes = Buffer.concat([before, piece, middle, after]);
    }
    return bytes;
  }

  async function survives(bytes: Buffer): Promise<void> {
    const client = await bench.connect();
    client.socket.end(bytes);
    client.socket.resume();
    await client.closed;
    expect(bench.device.underWay).toBe(0);
    for (const { offset, length } of bench.device.calls.splice(0)) {
      expect(offset >= 0 && offset + length <= SIZE_BYTES).toBe(true);
    }
  }

  test("with damage end, and the next client is served", async () => {
    await fc.assert(
      fc.asyncProperty(fc.constantFrom(...goodSessions), anyDamage, async (session, damage) => {
        await survives(damaged(session, damage));
      }),
      { seed, numRuns: 1500 },
    );
    const client = await bench.attach();
    expect(await client.ask({ command: FLUSH })).toBe(0);
  });

  test("of random bytes end, behind any beginning, and the next client is served", async () => {
    const beginnings = [
      Buffer.alloc(0),
      u32(3),
      rawHandshake(),
      rawHandshake({ structured: true }),
    ];
    const anyNoise = fc.oneof(
      fc.uint8Array({ maxLength: 300 }),
      // Right magic, and random fields behind it.
      fc
        .array(fc.uint8Array({ minLength: 24, maxLength: 24 }), { maxLength: 8 })
        .map((pieces) =>
          Buffer.concat(pieces.flatMap((piece) => [Buffer.from("25609513", "hex"), piece])),
        ),
      fc
        .array(fc.uint8Array({ minLength: 8, maxLength: 24 }), { maxLength: 8 })
        .map((pieces) =>
          Buffer.concat(pieces.flatMap((piece) => [Buffer.from("IHAVEOPT"), piece])),
        ),
    );
    await fc.assert(
      fc.asyncProperty(fc.constantFrom(...beginnings), anyNoise, async (beginning, noise) => {
        await survives(Buffer.concat([beginning, noise]));
      }),
      { seed, numRuns: 1500 },
    );
    const client = await bench.attach();
    expect(await client.ask({ command: FLUSH })).toBe(0);
  });
});
