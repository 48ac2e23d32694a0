import { ByteError } from "@vmferry/core";
import { describe, expect, test } from "vitest";
import { NbdError } from "./nbd-error.ts";
import {
  decodeClientFlags,
  decodeInfoRequest,
  decodeMetaContextRequest,
  decodeOptionHeader,
  encodeBlockSizeInfo,
  encodeExportInfo,
  encodeExportNameReply,
  encodeGreeting,
  encodeMetaContextReply,
  encodeNameInfo,
  encodeOptionError,
  encodeOptionReply,
  encodeServerReply,
} from "./option-codec.ts";

function hex(text: string): Buffer {
  return Buffer.from(text.replaceAll(" ", ""), "hex");
}

const REPLY_MAGIC = "0003e889045565a9";

describe("what the server sends", () => {
  test.each([
    ["the greeting", encodeGreeting(), "4e42444d41474943 49484156454f5054 0003"],
    ["an acknowledgement", encodeOptionReply(8, 1), `${REPLY_MAGIC} 00000008 00000001 00000000`],
    [
      "an export in a list",
      encodeServerReply(3, Buffer.from("disk0")),
      `${REPLY_MAGIC} 00000003 00000002 00000009 00000005 6469736b30`,
    ],
    [
      "INFO_EXPORT",
      encodeExportInfo(7, { sizeBytes: 0x1_0000_0200, flags: 0x04ed }),
      `${REPLY_MAGIC} 00000007 00000003 0000000c 0000 0000000100000200 04ed`,
    ],
    [
      "INFO_BLOCK_SIZE",
      encodeBlockSizeInfo(6),
      `${REPLY_MAGIC} 00000006 00000003 0000000e 0003 00000001 00001000 02000000`,
    ],
    [
      "INFO_NAME",
      encodeNameInfo(6, Buffer.from("disk0")),
      `${REPLY_MAGIC} 00000006 00000003 00000007 0001 6469736b30`,
    ],
    [
      "a metadata context",
      encodeMetaContextReply(10, { id: 1, name: "base:allocation" }),
      `${REPLY_MAGIC} 0000000a 00000004 00000013 00000001 626173653a616c6c6f636174696f6e`,
    ],
    [
      "a refusal, with a constant text",
      encodeOptionError(0xffff_ffff, 0x8000_0001),
      `${REPLY_MAGIC} ffffffff 80000001 00000014 6f7074696f6e206e6f7420737570706f72746564`,
    ],
    [
      "the answer to EXPORT_NAME",
      encodeExportNameReply({ sizeBytes: 4096, flags: 0x0103 }, true),
      "0000000000001000 0103",
    ],
    [
      "the answer to EXPORT_NAME with its padding",
      encodeExportNameReply({ sizeBytes: 4096, flags: 0x0103 }, false),
      `0000000000001000 0103 ${"00".repeat(124)}`,
    ],
  ])("%s", (_, bytes, expected) => {
    expect(bytes.toString("hex")).toBe(expected.replaceAll(" ", ""));
  });

  test("the size of an export is never negative to a client (libnbd CVE-2023-5215)", () => {
    const bytes = encodeExportInfo(7, { sizeBytes: Number.MAX_SAFE_INTEGER, flags: 1 });
    expect(bytes.readBigInt64BE(22)).toBe(2n ** 53n - 1n);
  });
});

interface Decoder {
  readonly name: string;
  readonly decode: (bytes: Uint8Array) => unknown;
  readonly bytes: Buffer;
  readonly value: unknown;
}

const decoders: readonly Decoder[] = [
  {
    name: "client flags",
    decode: decodeClientFlags,
    bytes: hex("00000003"),
    value: { noZeroes: true },
  },
  {
    name: "an option's header",
    decode: decodeOptionHeader,
    bytes: hex("49484156454f5054 00000007 00001100"),
    value: { option: 7, length: 0x1100 },
  },
  {
    name: "a request for information",
    decode: decodeInfoRequest,
    bytes: hex("00000005 6469736b30 0002 0003 ffff"),
    value: { name: new Uint8Array(Buffer.from("disk0")), infoTypes: [3, 0xffff] },
  },
  {
    name: "a request for metadata contexts",
    decode: decodeMetaContextRequest,
    bytes: hex("00000001 61 00000002 00000005 626173653a 00000000"),
    value: { name: new Uint8Array(Buffer.from("a")), queries: ["base:", ""] },
  },
];

describe.each(decoders)("$name", ({ decode, bytes, value }) => {
  test("is decoded", () => {
    // Views of a Buffer are Buffers; the codec promises no more than bytes.
    expect(decode(new Uint8Array(bytes))).toEqual(value);
  });

  test("is refused when it is cut anywhere", () => {
    for (let length = 0; length < bytes.length; length++) {
      expect(() => decode(bytes.subarray(0, length)), `${length} bytes`).toThrow(ByteError);
    }
  });

  test("is refused with a byte too many", () => {
    expect(() => decode(Buffer.concat([bytes, Buffer.alloc(1)]))).toThrow(ByteError);
  });
});

describe("a client is dropped", () => {
  test.each(["00000000", "00000002", "00000004", "00000007", "80000001", "ffffffff"])(
    "for the flags %s",
    (flags) => {
      expect(() => decodeClientFlags(hex(flags))).toThrow(NbdError);
    },
  );

  test("for an option without its magic", () => {
    expect(() => decodeOptionHeader(hex("49484156454f5055 00000007 00000000"))).toThrow(NbdError);
  });
});

describe("a name of 0xffffffff bytes", () => {
  test("takes no memory and is refused (CVE-2022-26495)", () => {
    expect(() => decodeInfoRequest(hex("ffffffff 61 0000"))).toThrow(NbdError);
    expect(() => decodeMetaContextRequest(hex("ffffffff 61 00000000"))).toThrow(NbdError);
  });

  test("is refused as a query, too", () => {
    expect(() => decodeMetaContextRequest(hex("00000000 00000001 ffffffff"))).toThrow(NbdError);
  });
});

test("a count that the data do not bear out is refused at the first piece that is missing", () => {
  expect(() => decodeInfoRequest(hex("00000000 ffff 0003"))).toThrow(ByteError);
  expect(() => decodeMetaContextRequest(hex("00000000 ffffffff"))).toThrow(ByteError);
});
