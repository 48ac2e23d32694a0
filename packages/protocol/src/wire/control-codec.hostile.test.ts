/** What no well-meaning peer sends: see that it is refused, by a ProtocolError, in bounded time. */
import { describe, expect, test } from "vitest";
import { decodeControl, encodeControl } from "./control-codec.ts";
import { Entries, naivePack, RawValue } from "./naive-msgpack.ts";
import { ProtocolError } from "./protocol-error.ts";
import { sampleMessages } from "./sample-messages.ts";

const seed = Number(process.env["SEED"] ?? Math.trunc(Math.random() * 2 ** 31));

function rule(bytes: Uint8Array): string {
  try {
    decodeControl(bytes);
  } catch (error) {
    if (error instanceof ProtocolError && error.detail.code === "protocol-violation") {
      return error.detail.rule;
    }
    throw error;
  }
  return "accepted";
}

function hex(text: string): Buffer {
  return Buffer.from(text, "hex");
}

const NOT_ALLOWED = "control message with a token that is not allowed";
const MALFORMED = "control message credit malformed";
const TRUNCATED = "control message truncated";

describe("tokens that the protocol never uses", () => {
  /** Each of them where a whole message, a value, an element and a key would be. */
  function everywhere(raw: RawValue): Buffer[] {
    return [
      raw.bytes,
      naivePack({ kind: "credit", bytes: raw }),
      naivePack({ ...sampleMessages.hello, features: ["a", raw] }),
      naivePack(new Entries(["kind", "credit"], [raw, 1])),
    ];
  }

  test("the one that is never used (c1) is refused", () => {
    for (const bytes of everywhere(new RawValue("c1"))) expect(rule(bytes)).toBe(NOT_ALLOWED);
  });

  test.each([0x42, 0x62, 0x65, 0x69, 0x70, 0x72, 0x73, 0x74, 0x78, 0xff, 0x00, 0x01])(
    "extension type %i is refused in every length that it can have",
    (type) => {
      const t = type.toString(16).padStart(2, "0");
      const fixed = [1, 2, 4, 8, 16].map(
        (bytes, i) => `${(0xd4 + i).toString(16)}${t}${"00".repeat(bytes)}`,
      );
      const sized = [`c700${t}`, `c703${t}000000`, `c80003${t}000000`, `c900000003${t}000000`];
      for (const extension of [...fixed, ...sized, `c9ffffffff${t}`, `c7ff${t}`]) {
        for (const bytes of everywhere(new RawValue(extension))) {
          expect(rule(bytes), extension).toBe(NOT_ALLOWED);
        }
      }
    },
  );

  test("a record definition, which msgpackr would turn into code, is refused", () => {
    // d4 72 40: record 0x40 with the fields that follow, then its values.
    expect(rule(hex("d4724092a46b696e64a56279746573a663726564697401"))).toBe(NOT_ALLOWED);
    expect(rule(hex("d5724001a46b696e64"))).toBe(NOT_ALLOWED);
    // And a record that was never defined is a number, which is no message.
    expect(rule(hex("40"))).toBe("control message without a kind");
  });

  test("arrays and maps with 32-bit counts are refused, however many they announce", () => {
    for (const token of ["dd", "df"]) {
      for (const count of ["00000000", "00000001", "0000ffff", "7fffffff", "ffffffff"]) {
        for (const bytes of everywhere(new RawValue(`${token}${count}`))) {
          expect(rule(bytes)).toBe(NOT_ALLOWED);
        }
      }
    }
  });
});

describe("lengths that are not there", () => {
  test.each([
    ["bin8", "c4ff"],
    ["bin16", "c5ffff"],
    ["bin32", "c6ffffffff"],
    ["bin32 of 16 MiB", "c601000000"],
    ["str8", "d9ff"],
    ["str16", "daffff"],
    ["str32", "dbffffffff"],
    ["str32 beyond 2^31", "db80000000"],
    ["a short string", "bf"],
    ["array16", "dc0400"],
    ["a short array", "9f"],
    ["map16", "de0400"],
    ["a short map", "8f"],
    ["a double", "cb"],
    ["a 64-bit number", "cf"],
  ])("%s: nothing is allocated for what does not follow", (_, header) => {
    for (let behind = 0; behind < 8; behind++) {
      const bytes = Buffer.concat([hex(header), Buffer.alloc(behind)]);
      if (behind === 0) expect(rule(bytes)).toBe(TRUNCATED);
      expect(
        rule(naivePack({ kind: "credit", bytes: new RawValue(bytes.toString("hex")) })),
      ).not.toBe("accepted");
    }
    for (let end = 1; end < header.length / 2; end++) {
      expect(rule(hex(header).subarray(0, end))).toBe(TRUNCATED);
    }
  });
});

describe("numbers", () => {
  function credit(number: unknown): string {
    return rule(naivePack({ kind: "credit", bytes: number }));
  }

  test("are taken in any width that holds the same integer", () => {
    const forms = ["01", "cc01", "cd0001", "ce00000001", "cf0000000000000001"];
    const signed = ["d001", "d10001", "d200000001", "d30000000000000001"];
    for (const form of [...forms, ...signed, "ca3f800000", "cb3ff0000000000000"]) {
      const bytes = naivePack({ kind: "credit", bytes: new RawValue(form) });
      expect(decodeControl(bytes), form).toEqual({ kind: "credit", bytes: 1 });
    }
  });

  test("that are no integers, or no numbers at all, are refused", () => {
    const halves = [0.5, NaN, Infinity, -Infinity, 1e308, 5e-324];
    for (const number of halves) expect(credit(number), String(number)).toBe(MALFORMED);
    for (const single of ["ca7fc00000", "ca7f800000", "caff800000", "ca3f000000"]) {
      expect(credit(new RawValue(single)), single).toBe(MALFORMED);
    }
  });

  test("below zero are refused in every width", () => {
    for (const number of ["ff", "e0", "d0ff", "d1ffff", "d2ffffffff", "d3ffffffffffffffff"]) {
      expect(credit(new RawValue(number)), number).toBe(MALFORMED);
    }
    expect(credit(new RawValue("d38000000000000000"))).toBe(MALFORMED);
  });

  test("of 64 bits are exact up to 2^53 - 1 and refused from 2^53 on", () => {
    const epoch = (value: unknown): Buffer => naivePack({ ...sampleMessages.token, epoch: value });
    const max = 2n ** 53n - 1n;
    expect(decodeControl(epoch(max))).toEqual({ ...sampleMessages.token, epoch: Number(max) });
    for (const value of [max + 1n, max + 2n, 2n ** 63n - 1n, 2n ** 63n, 2n ** 64n - 1n]) {
      expect(rule(epoch(value)), `${value}`).toBe("control message token malformed");
    }
    for (const value of [2 ** 53, 2 ** 63, 2 ** 64]) {
      expect(rule(epoch(value)), `${value}`).toBe("control message token malformed");
    }
  });
});

describe("keys", () => {
  const good: readonly [string, unknown][] = [
    ["kind", "credit"],
    ["bytes", 1],
  ];

  test("that come twice: the last one counts, and it is the one that is checked", () => {
    const twice = naivePack(new Entries(["bytes", "x"], ...good));
    expect(decodeControl(twice)).toEqual({ kind: "credit", bytes: 1 });
    expect(rule(naivePack(new Entries(...good, ["bytes", "x"])))).toBe(MALFORMED);
    expect(rule(naivePack(new Entries(...good, ["kind", "token"])))).toBe(
      "control message token malformed",
    );
  });

  test.each(["__proto__", "constructor", "prototype", "toString", "hasOwnProperty", "__proto_"])(
    "named %s are refused and reach no prototype",
    (key) => {
      const evil = { kind: "credit", bytes: 1, polluted: true };
      expect(rule(naivePack(new Entries(...good, [key, evil])))).toBe(MALFORMED);
      expect(rule(naivePack(new Entries([key, evil])))).toBe("control message without a kind");
      const boot = new Entries(...Object.entries(sampleMessages.offer.guest.boot!), [key, evil]);
      const offer = { ...sampleMessages.offer, guest: { ...sampleMessages.offer.guest, boot } };
      expect(rule(naivePack(offer))).toBe("control message offer malformed");
      expect(({} as Record<string, unknown>)["polluted"]).toBeUndefined();
      expect(Object.keys(Object.prototype)).toEqual([]);
    },
  );

  test("that are no strings are refused", () => {
    for (const key of [0, -1, 1.5, null, true, [], ["kind"], new Entries(), Buffer.from("kind")]) {
      expect(rule(naivePack(new Entries(...good, [key, 1]))), JSON.stringify(key)).not.toBe(
        "accepted",
      );
    }
    expect(rule(naivePack(new Entries([Buffer.from("kind"), "credit"], ["bytes", 1])))).not.toBe(
      "accepted",
    );
  });

  test.each(["constructor", "__proto__", "toString", "hasOwnProperty", "", "Credit", "credit "])(
    "a message of kind %j is of an unknown kind",
    (kind) => {
      expect(rule(naivePack({ kind, bytes: 1 }))).toBe("control message of an unknown kind");
    },
  );

  test.each([[null], [1], [["credit"]], [{ kind: "credit" }], [true], [Buffer.from("credit")]])(
    "a kind that is %j is no kind",
    (kind) => {
      expect(rule(naivePack({ kind, bytes: 1 }))).toBe("control message of an unknown kind");
    },
  );

  test.each([[null], [0], ["credit"], [[]], [["kind", "credit"]], [{}], [Buffer.from("kind")]])(
    "%j is no message",
    (value) => {
      expect(rule(naivePack(value))).toBe("control message without a kind");
    },
  );
});

test("text that is not UTF-8 is text all the same, and cannot hide a kind", () => {
  const text = new RawValue("a4ff41c3ff");
  const decoded = decodeControl(naivePack({ ...sampleMessages.reject, text }));
  expect(decoded).toMatchObject({ kind: "reject", text: expect.stringContaining("A") as string });
  expect(rule(naivePack({ kind: new RawValue("a7637265646974ff"), bytes: 1 }))).toBe(
    "control message of an unknown kind",
  );
});

/** A quick and repeatable source of bytes: xorshift32. */
class Noise {
  #state: number;

  constructor(start: number) {
    this.#state = start | 1;
  }

  below(limit: number): number {
    this.#state ^= this.#state << 13;
    this.#state ^= this.#state >>> 17;
    this.#state ^= this.#state << 5;
    return (this.#state >>> 0) % limit;
  }
}

describe(`random input (seed ${seed})`, () => {
  const COUNT = 100_000;
  const TOKENS = hex(
    "80818285909192a0a1a4bfc0c1c2c3c4c5c6c7c8c9cacbcccdcecfd0d1d2d3d4d5d6d7d8d9dadbdcdddedfe0ff",
  );

  /** Counts the accepted; anything but a ProtocolError fails the test with the bytes. */
  function survive(make: (noise: Noise) => Buffer): { accepted: number; rules: Set<string> } {
    const noise = new Noise(seed);
    const result = { accepted: 0, rules: new Set<string>() };
    for (let i = 0; i < COUNT; i++) {
      const bytes = make(noise);
      const copy = bytes.toString("hex");
      try {
        const verdict = rule(bytes);
        if (verdict === "accepted") result.accepted++;
        else result.rules.add(verdict);
      } catch (error) {
        throw new Error(`seed ${seed}, input ${i}: ${copy}`, { cause: error });
      }
    }
    return result;
  }

  test("of tokens is refused by nothing but a ProtocolError", () => {
    const { rules } = survive((noise) => {
      const bytes = Buffer.alloc(1 + noise.below(60));
      for (let at = 0; at < bytes.length; at++) {
        bytes[at] = noise.below(2) === 0 ? TOKENS[noise.below(TOKENS.length)]! : noise.below(256);
      }
      return bytes;
    });
    expect(rules.size).toBeGreaterThan(4);
  });

  test("made by damaging good messages is accepted or refused, never worse", () => {
    const messages = Object.values(sampleMessages).map((message) => encodeControl(message));
    const { accepted, rules } = survive((noise) => {
      const message = messages[noise.below(messages.length)]!;
      const bytes = Buffer.from(message);
      for (let damages = 1 + noise.below(3); damages > 0; damages--) {
        const at = noise.below(bytes.length);
        const kind = noise.below(4);
        if (kind === 0) bytes[at]! ^= 1 << noise.below(8);
        else if (kind === 1) bytes[at] = TOKENS[noise.below(TOKENS.length)]!;
        else if (kind === 2) bytes.copyWithin(at, noise.below(bytes.length));
        else return bytes.subarray(0, at);
      }
      return bytes;
    });
    expect(accepted).toBeGreaterThan(100);
    expect(rules.size).toBeGreaterThan(15);
  });
});
