import { InvariantError } from "@vmferry/core";
import * as msgpack from "msgpackr/unpack";
import { describe, expect, test } from "vitest";
import { decodeControl, encodeControl } from "./control-codec.ts";
import { ControlSchemas, type ControlMessage } from "./control-messages.ts";
import { naivePack } from "./naive-msgpack.ts";
import { ProtocolError } from "./protocol-error.ts";
import { sampleMessages } from "./sample-messages.ts";

const samples = Object.entries(sampleMessages) as readonly (readonly [string, ControlMessage])[];

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

describe("every kind of message", () => {
  test("has a sample", () => {
    expect(Object.keys(sampleMessages)).toEqual(Object.keys(ControlSchemas));
  });

  test.each(samples)("%s comes back as it was sent", (_, message) => {
    expect(decodeControl(encodeControl(message))).toEqual(message);
  });

  test.each(samples)("%s is understood from another encoder", (_, message) => {
    expect(decodeControl(naivePack(message))).toEqual(message);
  });

  test.each(samples)("%s is refused when it is cut at any byte, or has one more", (_, message) => {
    const bytes = encodeControl(message);
    for (let end = 0; end < bytes.length; end++) {
      expect(rule(bytes.subarray(0, end)), `${end} bytes`).toBe("control message truncated");
    }
    const longer = Buffer.concat([bytes, Buffer.of(0)]);
    expect(rule(longer)).toBe("bytes after the control message");
  });
});

describe("golden messages, both ways", () => {
  const about = { migrationId: "m", epoch: 1, generation: 1, incarnation: "i" };
  const aboutHex =
    "ab6d6967726174696f6e4964a16da565706f636801aa67656e65726174696f6e01ab696e6361726e6174696f6ea169";

  test.each<[ControlMessage, string]>([
    [{ kind: "credit", bytes: 65_535 }, "82a46b696e64a6637265646974a56279746573cdffff"],
    [{ kind: "token", ...about }, `85a46b696e64a5746f6b656e${aboutHex}`],
    [
      { kind: "refused", ...about, code: "cancelled", text: "ä" },
      `87a46b696e64a772656675736564${aboutHex}a4636f6465a963616e63656c6c6564a474657874a2c3a4`,
    ],
    [
      {
        kind: "prepared",
        ...about,
        ramDigest: "0f".repeat(32),
        diskDigests: ["a1".repeat(32), "b2".repeat(32)],
      },
      `87a46b696e64a87072657061726564${aboutHex}a972616d446967657374d940${"3066".repeat(32)}` +
        `ab6469736b4469676573747392d940${"6131".repeat(32)}d940${"6232".repeat(32)}`,
    ],
    [
      { kind: "return-path", bytes: Buffer.of(1, 2, 255) },
      "82a46b696e64ab72657475726e2d70617468a56279746573c4030102ff",
    ],
    [
      {
        kind: "resume",
        ...{ migrationId: "m", epoch: 8, generation: 1, incarnation: "s1" },
        ...{ session: null, received: 0 },
      },
      "87a46b696e64a6726573756d65ab6d6967726174696f6e4964a16da565706f636808aa67656e65726174696f6e01" +
        "ab696e6361726e6174696f6ea27331a773657373696f6ec0a8726563656976656400",
    ],
    [{ kind: "received", received: 64 }, "82a46b696e64a87265636569766564a8726563656976656440"],
    [
      {
        kind: "hello",
        version: 2,
        versionMin: 2,
        features: ["a", "b-2"],
        software: "v",
        incarnation: "i",
      },
      "86a46b696e64a568656c6c6fa776657273696f6e02aa76657273696f6e4d696e02a8666561747572657392a161a3622d32" +
        "a8736f667477617265a176ab696e6361726e6174696f6ea169",
    ],
  ])("%j", (message, hex) => {
    expect(encodeControl(message).toString("hex")).toBe(hex);
    expect(decodeControl(Buffer.from(hex, "hex"))).toEqual(message);
  });

  test("numbers beyond 32 bits travel as doubles, which hold them exactly", () => {
    const message = { ...sampleMessages.token, epoch: 2 ** 53 - 1, generation: 2 ** 32 };
    const hex = encodeControl(message).toString("hex");
    expect(hex).toContain("cb433fffffffffffff");
    expect(hex).toContain("cb41f0000000000000");
    expect(decodeControl(Buffer.from(hex, "hex"))).toEqual(message);
  });
});

describe("encoding", () => {
  test.each([
    ["a field too many", { ...sampleMessages.credit, more: 1 }],
    ["a field too few", { kind: "credit" }],
    ["a field that is undefined", { ...sampleMessages.credit, more: undefined }],
    ["a number out of range", { kind: "credit", bytes: 2 ** 40 }],
    ["an unknown kind", { kind: "credits", bytes: 1 }],
    ["too many bytes", { kind: "return-path", bytes: Buffer.alloc(16 * 1024 + 1) }],
  ])("asserts what decoding checks: %s", (_, message) => {
    expect(() => encodeControl(message as never)).toThrow(InvariantError);
  });

  test.each(["reject", "refused", "abort"] as const)(
    "cuts the text of %s rather than send what the peer would refuse",
    (kind) => {
      // The cut goes through the middle of a surrogate pair.
      const text = `${"x".repeat(1023)}${"😀".repeat(2000)}`;
      const decoded = decodeControl(encodeControl({ ...sampleMessages[kind], text }));
      expect(decoded).toEqual({ ...sampleMessages[kind], text: `${"x".repeat(1023)}\ufffd` });
    },
  );

  test("sends half a surrogate pair as the one character that stands for what is no text", () => {
    const decoded = decodeControl(encodeControl({ ...sampleMessages.reject, text: "a\ud83db" }));
    expect(decoded).toEqual({ ...sampleMessages.reject, text: "a\ufffdb" });
  });
});

describe("decoded bytes", () => {
  function returnPathBytes(message: Uint8Array): Uint8Array {
    const decoded = decodeControl(message);
    if (decoded.kind !== "return-path") throw new Error(`${decoded.kind} instead of return-path`);
    return decoded.bytes;
  }

  test("are a view of the message, and stay what they are while others are decoded", () => {
    const message = encodeControl(sampleMessages["return-path"]);
    const bytes = returnPathBytes(message);
    expect(bytes.buffer).toBe(message.buffer);
    for (const [, other] of samples) decodeControl(encodeControl(other));
    expect(Buffer.from(bytes).toString("hex")).toBe("0002000400000001");
  });

  test("of a message inside a larger buffer are that message's own", () => {
    const message = encodeControl(sampleMessages["return-path"]);
    const larger = Buffer.concat([Buffer.alloc(7, 0xff), message, Buffer.alloc(9, 0xff)]);
    const bytes = returnPathBytes(larger.subarray(7, 7 + message.length));
    expect(Buffer.from(bytes).toString("hex")).toBe("0002000400000001");
  });
});

describe("limits of a message", () => {
  test("64 KiB are looked at, a byte more is not", () => {
    const padded = (bytes: number): Buffer =>
      naivePack({ kind: "credit", bytes: "x".repeat(bytes - 22) });
    expect(padded(65_536)).toHaveLength(65_536);
    expect(rule(padded(65_536))).toBe("control message credit malformed");
    expect(rule(padded(65_537))).toBe("control message too large");
    expect(rule(Buffer.alloc(1024 ** 2))).toBe("control message too large");
  });

  test("values lie seven containers deep at most", () => {
    const nested = (depth: number): unknown => (depth === 0 ? 0 : [nested(depth - 1)]);
    expect(rule(naivePack(nested(7)))).toBe("control message without a kind");
    expect(rule(naivePack(nested(8)))).toBe("control message nested too deep");
    expect(rule(Buffer.alloc(65_536, 0x91))).toBe("control message nested too deep");
    expect(rule(Buffer.alloc(65_536, 0x81))).toBe("control message nested too deep");
  });

  test("an array has 1024 elements at most, and a map as many entries", () => {
    const array = (count: number): Buffer => naivePack(Array.from({ length: count }, () => 0));
    expect(rule(array(1024))).toBe("control message without a kind");
    expect(rule(array(1025))).toBe("control message with too many elements");
    const map = (count: number): Buffer =>
      naivePack(Object.fromEntries(Array.from({ length: count }, (_, index) => [`k${index}`, 0])));
    expect(rule(map(1024))).toBe("control message without a kind");
    expect(rule(map(1025))).toBe("control message with too many elements");
    // Refused by the count alone, before the elements are there.
    expect(rule(Buffer.from("dc0401", "hex"))).toBe("control message with too many elements");
    expect(rule(Buffer.from("dcffff", "hex"))).toBe("control message with too many elements");
    expect(rule(Buffer.from("deffff", "hex"))).toBe("control message with too many elements");
  });
});

test("the peer's bytes are not handed to native code", () => {
  const { isNativeAccelerationEnabled } = msgpack as unknown as {
    isNativeAccelerationEnabled: unknown;
  };
  expect(isNativeAccelerationEnabled).toBe(false);
});
