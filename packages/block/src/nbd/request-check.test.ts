import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { checkRequest, type RequestRules } from "./request-check.ts";
import type { NbdRequest } from "./request-codec.ts";

const seed = Number(process.env["SEED"] ?? Math.trunc(Math.random() * 2 ** 31));

const MIB = 1024 * 1024;
const RULES: RequestRules = {
  sizeBytes: 64 * MIB,
  readOnly: false,
  structuredReplies: true,
  blockStatus: true,
};

const READ = 0;
const WRITE = 1;
const DISC = 2;
const FLUSH = 3;
const TRIM = 4;
const CACHE = 5;
const WRITE_ZEROES = 6;
const BLOCK_STATUS = 7;
const RANGED = [READ, WRITE, TRIM, CACHE, WRITE_ZEROES, BLOCK_STATUS];

const EPERM = 1;
const EINVAL = 22;
const ENOSPC = 28;
const EOVERFLOW = 75;

const FUA = 1;
const NO_HOLE = 2;
const DF = 4;
const REQ_ONE = 8;
const FAST_ZERO = 16;

function check(
  fields: Partial<NbdRequest>,
  rules: Partial<RequestRules> = {},
): ReturnType<typeof checkRequest> {
  const request = { flags: 0, command: READ, cookie: 1n, offset: 0n, length: 512, ...fields };
  return checkRequest(request, { ...RULES, ...rules });
}

function refusal(errno: number, payloadBytes = 0): ReturnType<typeof checkRequest> {
  return { kind: "refuse", errno: errno as 22, payloadBytes };
}

describe("a good request", () => {
  test.each([
    [{ command: READ }, { kind: "read", dontFragment: false }, 512],
    [{ command: READ, flags: DF | FUA }, { kind: "read", dontFragment: true }, 512],
    [{ command: WRITE }, { kind: "write", fua: false }, 512],
    [{ command: WRITE, flags: FUA }, { kind: "write", fua: true }, 512],
    [{ command: TRIM, flags: FUA }, { kind: "trim", fua: true }, 0],
    [{ command: WRITE_ZEROES }, { kind: "write-zeroes", fua: false, mayPunch: true }, 0],
    [
      { command: WRITE_ZEROES, flags: FUA | NO_HOLE },
      { kind: "write-zeroes", fua: true, mayPunch: false },
      0,
    ],
    [{ command: BLOCK_STATUS }, { kind: "block-status", oneExtent: false }, 4 * MIB],
    [{ command: BLOCK_STATUS, flags: REQ_ONE }, { kind: "block-status", oneExtent: true }, 4 * MIB],
  ])("%o is run", (fields, command, weightBytes) => {
    expect(check({ ...fields, offset: 4096n })).toEqual({
      kind: "run",
      command: { ...command, offset: 4096, length: 512 },
      weightBytes,
    });
  });

  test("without a range is run", () => {
    const run = (kind: string): object => ({ kind: "run", command: { kind }, weightBytes: 0 });
    expect(check({ command: FLUSH, length: 0 })).toEqual(run("flush"));
    expect(check({ command: FLUSH, length: 0, flags: FUA })).toEqual(run("flush"));
    expect(check({ command: CACHE })).toEqual(run("cache"));
    expect(check({ command: DISC, length: 0 })).toEqual({ kind: "disconnect" });
  });

  test.each(RANGED)("reaches to the last byte of the export (command %i)", (command) => {
    expect(check({ command, offset: BigInt(64 * MIB - 1), length: 1 }).kind).toBe("run");
  });
});

describe("a range", () => {
  test.each(RANGED)("past the end of the export is refused (command %i)", (command) => {
    const errno = command === WRITE || command === WRITE_ZEROES ? ENOSPC : EINVAL;
    for (const [offset, length] of [
      [BigInt(64 * MIB - 1), 2],
      [BigInt(64 * MIB), 1],
      [2n ** 53n, 1],
      [2n ** 63n, 1],
      // The sum wraps around in 64 bits, to a range inside.
      [2n ** 64n - 1n, 2],
      [2n ** 64n - 512n, 1024],
    ] as const) {
      const payloadBytes = command === WRITE ? length : 0;
      expect(check({ command, offset, length })).toEqual(refusal(errno, payloadBytes));
    }
  });

  test.each(RANGED)("of nothing is refused (command %i)", (command) => {
    expect(check({ command, length: 0 })).toEqual(refusal(EINVAL));
  });

  test("is exact where a double would round it", () => {
    const sizeBytes = Number.MAX_SAFE_INTEGER;
    expect(check({ offset: 2n ** 53n - 2n, length: 1 }, { sizeBytes }).kind).toBe("run");
    expect(check({ offset: 2n ** 53n - 2n, length: 2 }, { sizeBytes })).toEqual(refusal(EINVAL));
  });

  test.each([FLUSH])("where there is none is refused", (command) => {
    expect(check({ command, offset: 0n, length: 1 })).toEqual(refusal(EINVAL));
    expect(check({ command, offset: 1n, length: 0 })).toEqual(refusal(EINVAL));
  });

  test.each([TRIM, CACHE, WRITE_ZEROES, BLOCK_STATUS])(
    "may be longer than a payload (command %i)",
    (command) => {
      const sizeBytes = 2 ** 40;
      expect(check({ command, length: 2 ** 32 - 1 }, { sizeBytes }).kind).toBe("run");
    },
  );
});

describe("a payload", () => {
  test("of 32 MiB is taken, both ways", () => {
    for (const command of [READ, WRITE]) {
      expect(check({ command, length: 32 * MIB })).toMatchObject({
        kind: "run",
        weightBytes: 32 * MIB,
      });
    }
  });

  test("of more to write drops the client, before its memory is taken", () => {
    for (const length of [32 * MIB + 1, 2 ** 32 - 1]) {
      expect(check({ command: WRITE, length }).kind).toBe("drop");
      expect(check({ command: WRITE, length }, { readOnly: true }).kind).toBe("drop");
    }
  });

  test("of more to read is refused", () => {
    const length = 32 * MIB + 1;
    expect(check({ length })).toEqual(refusal(EOVERFLOW));
    expect(check({ length }, { structuredReplies: false })).toEqual(refusal(EINVAL));
  });

  test("of a write that is refused is read past", () => {
    const bad = { command: WRITE, flags: REQ_ONE, length: 5 * MIB };
    expect(check(bad)).toEqual(refusal(EINVAL, 5 * MIB));
  });
});

describe("flags", () => {
  test.each([
    [READ, FUA | DF],
    [WRITE, FUA],
    [FLUSH, FUA],
    [TRIM, FUA],
    [CACHE, FUA],
    [WRITE_ZEROES, FUA | NO_HOLE],
    [BLOCK_STATUS, FUA | REQ_ONE],
  ])("command %i takes no others than %i", (command, allowed) => {
    const length = command === FLUSH ? 0 : 512;
    for (let bit = 0; bit < 16; bit++) {
      const verdict = check({ command, flags: 1 << bit, length });
      if (((1 << bit) & allowed) !== 0) expect(verdict.kind).toBe("run");
      else expect(verdict).toEqual(refusal(EINVAL, command === WRITE ? 512 : 0));
    }
  });

  test("DF is refused where replies are not structured", () => {
    expect(check({ flags: DF }, { structuredReplies: false })).toEqual(refusal(EINVAL));
  });

  test("FAST_ZERO is not offered, and refused", () => {
    expect(check({ command: WRITE_ZEROES, flags: FAST_ZERO })).toEqual(refusal(EINVAL));
  });
});

test.each([WRITE, TRIM, WRITE_ZEROES])(
  "a read-only export refuses command %i, wherever it points",
  (command) => {
    for (const offset of [0n, BigInt(64 * MIB)]) {
      const payloadBytes = command === WRITE ? 512 : 0;
      expect(check({ command, offset }, { readOnly: true })).toEqual(refusal(EPERM, payloadBytes));
    }
  },
);

test.each([READ, CACHE, BLOCK_STATUS, FLUSH])("a read-only export serves command %i", (command) => {
  const length = command === FLUSH ? 0 : 512;
  expect(check({ command, length }, { readOnly: true }).kind).toBe("run");
});

test("BLOCK_STATUS is refused where no context was selected", () => {
  expect(check({ command: BLOCK_STATUS }, { blockStatus: false })).toEqual(refusal(EINVAL));
});

test.each([8, 9, 255, 65535])(
  "the unknown command %i is refused, and its length is no payload",
  (command) => {
    expect(check({ command })).toEqual(refusal(EINVAL));
    expect(check({ command, length: 2 ** 32 - 1 })).toEqual(refusal(EINVAL));
  },
);

test(`nothing reaches the device outside the export, or against its rights (seed ${seed})`, () => {
  const kinds = new Set<string>();
  const near = (...edges: readonly bigint[]): fc.Arbitrary<bigint> =>
    fc.constantFrom(
      ...edges
        .flatMap((edge) => [edge - 1n, edge, edge + 1n])
        .filter((value) => value >= 0n && value < 2n ** 64n),
    );
  const anyLength = fc.oneof(
    fc.nat(2 ** 31 - 1),
    near(0n, 512n, 2n ** 25n, 2n ** 31n, 2n ** 32n - 2n).map(Number),
  );
  fc.assert(
    fc.property(
      fc.record({
        flags: fc.oneof(fc.constant(0), fc.constantFrom(1, 2, 4, 8, 3, 5), fc.nat(65535)),
        command: fc.oneof(fc.nat(8), fc.nat(65535)),
        cookie: fc.constant(1n),
        offset: fc.oneof(fc.bigInt(0n, 2n ** 64n - 1n), near(0n, 2n ** 40n, 2n ** 63n, 2n ** 64n)),
        length: anyLength,
      }),
      fc.record({
        sizeBytes: fc.constantFrom(0, 1, 2 ** 25, 2 ** 40, Number.MAX_SAFE_INTEGER),
        readOnly: fc.boolean(),
        structuredReplies: fc.boolean(),
        blockStatus: fc.boolean(),
      }),
      (request, rules) => {
        const verdict = checkRequest(request, rules);
        kinds.add(verdict.kind);
        if (verdict.kind === "refuse") {
          expect(verdict.payloadBytes).toBe(request.command === WRITE ? request.length : 0);
          expect(verdict.payloadBytes).toBeLessThanOrEqual(32 * MIB);
        }
        if (verdict.kind !== "run") return;
        const { command } = verdict;
        expect(verdict.weightBytes).toBeLessThanOrEqual(32 * MIB);
        if (rules.readOnly) {
          expect(["read", "flush", "cache", "block-status"]).toContain(command.kind);
        }
        if (!("offset" in command)) return;
        expect(BigInt(command.offset)).toBe(request.offset);
        expect(command.length).toBe(request.length);
        expect(command.length).toBeGreaterThan(0);
        expect(command.offset + command.length).toBeLessThanOrEqual(rules.sizeBytes);
      },
    ),
    { seed, numRuns: 20_000 },
  );
  expect([...kinds].sort()).toEqual(["disconnect", "drop", "refuse", "run"]);
});
