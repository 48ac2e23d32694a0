import { InvariantError } from "@vmferry/core";
import { describe, expect, test } from "vitest";
import {
  HANDSHAKE_BEGIN,
  handshakeBytesExpected,
  nextHandshake,
  transmissionFlags,
  type Agreed,
  type HandshakeState,
  type ServedExport,
} from "./handshake.ts";
import { NbdError } from "./nbd-error.ts";
import { lengthAndText, rawInfoData, rawMetaData, u16, u32, u64 } from "./raw-nbd-client.ts";

const SERVED: ServedExport = { name: Buffer.from("disk0"), sizeBytes: 65536, readOnly: false };
const NOTHING: Agreed = { noZeroes: true, structuredReplies: false, blockStatus: false };
const STRUCTURED: Agreed = { ...NOTHING, structuredReplies: true };
const WITH_STATUS: Agreed = { ...STRUCTURED, blockStatus: true };

const EXPORT_NAME = 1;
const ABORT = 2;
const LIST = 3;
const STARTTLS = 5;
const INFO = 6;
const GO = 7;
const STRUCTURED_REPLY = 8;
const LIST_META_CONTEXT = 9;
const SET_META_CONTEXT = 10;

const ACK = 1;
const UNSUP = 0x8000_0001;
const INVALID = 0x8000_0003;
const UNKNOWN = 0x8000_0006;

interface Outcome {
  readonly state: HandshakeState;
  readonly types: readonly number[];
  readonly data: readonly string[];
}

/** What comes of one option, with its replies taken apart. */
function option(number: number, data: Buffer = Buffer.alloc(0), agreed = NOTHING): Outcome {
  const header = Buffer.concat([Buffer.from("IHAVEOPT"), u32(number), u32(data.length)]);
  const { state: asking } = nextHandshake({ phase: "option-header", agreed }, header, SERVED);
  const { state, reply } = nextHandshake(asking, data, SERVED);
  const types: number[] = [];
  const texts: string[] = [];
  for (let at = 0; at < reply.length;) {
    expect(reply.readBigUInt64BE(at)).toBe(0x3e889045565a9n);
    expect(reply.readUInt32BE(at + 8)).toBe(number);
    const length = reply.readUInt32BE(at + 16);
    types.push(reply.readUInt32BE(at + 12));
    texts.push(reply.subarray(at + 20, at + 20 + length).toString("latin1"));
    at += 20 + length;
  }
  return { state, types, data: texts };
}

function going(agreed: Agreed): HandshakeState {
  return { phase: "option-header", agreed };
}

describe("the client's flags", () => {
  test.each([
    [1, { ...NOTHING, noZeroes: false }],
    [3, NOTHING],
  ])("%i begin the options", (flags, agreed) => {
    const step = nextHandshake(HANDSHAKE_BEGIN, u32(flags), SERVED);
    expect(step.state).toEqual(going(agreed));
    expect(step.reply).toHaveLength(0);
  });

  test("without fixed newstyle drop the client", () => {
    expect(() => nextHandshake(HANDSHAKE_BEGIN, u32(2), SERVED)).toThrow(NbdError);
  });
});

test("each phase says how many bytes it takes, and takes no others", () => {
  const data: HandshakeState = { phase: "option-data", agreed: NOTHING, option: GO, length: 77 };
  const states: HandshakeState[] = [HANDSHAKE_BEGIN, going(NOTHING), data];
  expect(states.map(handshakeBytesExpected)).toEqual([4, 16, 77]);
  for (const state of states) {
    expect(() => nextHandshake(state, Buffer.alloc(5), SERVED)).toThrow(InvariantError);
  }
});

test.each<HandshakeState>([{ phase: "entering", agreed: NOTHING }, { phase: "aborted" }])(
  "$phase accepts nothing any more",
  (state) => {
    expect(handshakeBytesExpected(state)).toBe(0);
    expect(() => nextHandshake(state, Buffer.alloc(0), SERVED)).toThrow(NbdError);
  },
);

describe("an option's declared length", () => {
  const header = (length: number): Buffer =>
    Buffer.concat([Buffer.from("IHAVEOPT"), u32(99), u32(length)]);

  test("is waited for up to the limit", () => {
    const { state } = nextHandshake(going(NOTHING), header(4096 + 256), SERVED);
    expect(handshakeBytesExpected(state)).toBe(4096 + 256);
  });

  test.each([4096 + 257, 0x7fff_ffff, 0xffff_ffff])(
    "of %i drops the client before anything of it is read (CVE-2017-15119)",
    (length) => {
      expect(() => nextHandshake(going(NOTHING), header(length), SERVED)).toThrow(NbdError);
    },
  );
});

describe("EXPORT_NAME", () => {
  test.each(["disk0", ""])("%j begins the transmission", (name) => {
    const data = Buffer.from(name);
    const state: HandshakeState = {
      phase: "option-data",
      agreed: NOTHING,
      option: EXPORT_NAME,
      length: data.length,
    };
    const step = nextHandshake(state, data, SERVED);
    expect(step.state).toEqual({ phase: "entering", agreed: NOTHING });
    expect(step.reply).toEqual(Buffer.concat([u64(65536), u16(0x046d)]));
  });

  test("of another name drops the client", () => {
    expect(() => option(EXPORT_NAME, Buffer.from("disk1"))).toThrow(NbdError);
    expect(() => option(EXPORT_NAME, Buffer.alloc(4200, "a"))).toThrow(NbdError);
  });
});

describe("ABORT", () => {
  test.each([0, 9])("is acknowledged and ends the handshake, with %i bytes of data", (length) => {
    const outcome = option(ABORT, Buffer.alloc(length));
    expect(outcome).toMatchObject({ state: { phase: "aborted" }, types: [ACK] });
  });
});

describe("LIST", () => {
  test("names the export", () => {
    const outcome = option(LIST);
    expect(outcome).toMatchObject({ state: going(NOTHING), types: [2, ACK] });
    expect(outcome.data[0]).toBe(lengthAndText("disk0").toString("latin1"));
  });

  test("with data is refused, and the handshake goes on (CVE-2017-7539)", () => {
    expect(option(LIST, Buffer.alloc(1))).toMatchObject({
      state: going(NOTHING),
      types: [INVALID],
    });
  });
});

describe.each([
  { name: "INFO", number: INFO, after: going(NOTHING) },
  { name: "GO", number: GO, after: { phase: "entering", agreed: NOTHING } },
])("$name", ({ number, after }) => {
  test.each(["disk0", ""])("tells of the export %j", (name) => {
    const outcome = option(number, rawInfoData(name));
    expect(outcome).toMatchObject({ state: after, types: [3, 3, ACK] });
    expect(Buffer.from(outcome.data[0]!, "latin1")).toEqual(
      Buffer.concat([u16(0), u64(65536), u16(0x046d)]),
    );
    expect(Buffer.from(outcome.data[1]!, "latin1")).toEqual(
      Buffer.concat([u16(3), u32(1), u32(4096), u32(32 * 1024 * 1024)]),
    );
  });

  test("tells the export's own name when asked, and ignores what it does not know", () => {
    const outcome = option(number, rawInfoData("", 2, 1, 0xffff));
    expect(outcome).toMatchObject({ state: after, types: [3, 3, 3, ACK] });
    expect(outcome.data[2]).toBe("\0\x01disk0");
  });

  test("offers DF once replies are structured", () => {
    const flags = option(number, rawInfoData(""), STRUCTURED).data[0]!.slice(10);
    expect(Buffer.from(flags, "latin1")).toEqual(u16(0x04ed));
  });

  test.each(["disk1", "disk", "disk00", "\u00ff", "a".repeat(4096)])(
    "refuses an unknown export without repeating its name (CVE-2017-15118, CVE-2020-10761)",
    (name) => {
      const outcome = option(number, rawInfoData(name));
      expect(outcome).toMatchObject({ state: going(NOTHING), types: [UNKNOWN] });
      expect(outcome.data).toEqual(["no such export"]);
    },
  );

  test.each([
    ["nothing", Buffer.alloc(0)],
    ["a name longer than the data", Buffer.concat([u32(6), Buffer.from("disk0")])],
    ["a name of 0xffffffff bytes (CVE-2022-26495)", Buffer.concat([u32(0xffff_ffff), u16(0)])],
    ["a name of 4097 bytes", rawInfoData("a".repeat(4097))],
    ["fewer information types than it says", Buffer.concat([u32(0), u16(2), u16(3)])],
    ["a byte too many", Buffer.concat([rawInfoData("disk0"), Buffer.alloc(1)])],
  ])("refuses %s, and the handshake goes on", (_, data) => {
    expect(option(number, data)).toMatchObject({ state: going(NOTHING), types: [INVALID] });
  });
});

describe("STRUCTURED_REPLY", () => {
  test("is agreed to, also twice", () => {
    expect(option(STRUCTURED_REPLY)).toMatchObject({ state: going(STRUCTURED), types: [ACK] });
    expect(option(STRUCTURED_REPLY, undefined, STRUCTURED).state).toEqual(going(STRUCTURED));
  });

  test("with data is refused", () => {
    expect(option(STRUCTURED_REPLY, Buffer.alloc(1))).toMatchObject({
      state: going(NOTHING),
      types: [INVALID],
    });
  });
});

describe("SET_META_CONTEXT", () => {
  const set = (data: Buffer, agreed = STRUCTURED): Outcome =>
    option(SET_META_CONTEXT, data, agreed);

  test("selects base:allocation, however often it is named", () => {
    for (const queries of [["base:allocation"], ["x:y", "base:allocation", "base:allocation"]]) {
      const outcome = set(rawMetaData("disk0", ...queries));
      expect(outcome).toMatchObject({ state: going(WITH_STATUS), types: [4, ACK] });
      expect(outcome.data[0]).toBe("\0\0\0\x01base:allocation");
    }
  });

  test.each([[[]], [["base:"]], [["base:other", "qemu:dirty-bitmap:b", "", "base"]]])(
    "of %j selects nothing, and takes back what was selected",
    (queries) => {
      expect(set(rawMetaData("", ...queries), WITH_STATUS)).toMatchObject({
        state: going(STRUCTURED),
        types: [ACK],
      });
    },
  );

  test("before structured replies is refused", () => {
    expect(set(rawMetaData("", "base:allocation"), NOTHING)).toMatchObject({
      state: going(NOTHING),
      types: [INVALID],
    });
  });

  test.each([
    ["another export", rawMetaData("disk1", "base:allocation"), UNKNOWN],
    [
      "a query longer than the data",
      Buffer.concat([u32(0), u32(1), u32(2), u16(0)]).subarray(0, 13),
      INVALID,
    ],
    ["a query of 0xffffffff bytes", Buffer.concat([u32(0), u32(1), u32(0xffff_ffff)]), INVALID],
    ["0xffffffff queries", Buffer.concat([u32(0), u32(0xffff_ffff)]), INVALID],
    ["a byte too many", Buffer.concat([rawMetaData("", "base:allocation"), u16(0)]), INVALID],
  ])("for %s is refused, and takes back what was selected", (_, data, error) => {
    expect(set(data, WITH_STATUS)).toMatchObject({ state: going(STRUCTURED), types: [error] });
  });
});

describe("LIST_META_CONTEXT", () => {
  test.each([[[]], [["base:"]], [["base:allocation"]], [["x:y", "base:"]]])(
    "of %j tells base:allocation once, without selecting it",
    (queries) => {
      const outcome = option(LIST_META_CONTEXT, rawMetaData("", ...queries), STRUCTURED);
      expect(outcome).toMatchObject({ state: going(STRUCTURED), types: [4, ACK] });
      expect(outcome.data[0]).toBe("\0\0\0\0base:allocation");
    },
  );

  test("of other contexts tells nothing", () => {
    const outcome = option(LIST_META_CONTEXT, rawMetaData("", "x:y", "base:z"), STRUCTURED);
    expect(outcome.types).toEqual([ACK]);
  });

  test("leaves what was selected as it was, also where it is refused", () => {
    for (const data of [rawMetaData(""), rawMetaData("disk1"), Buffer.alloc(3)]) {
      expect(option(LIST_META_CONTEXT, data, WITH_STATUS).state).toEqual(going(WITH_STATUS));
    }
  });
});

describe("an option that is not served", () => {
  test("STARTTLS is refused and changes nothing that was agreed on (nbdkit CVE-2021-3716)", () => {
    expect(option(STARTTLS, undefined, WITH_STATUS)).toMatchObject({
      state: going(WITH_STATUS),
      types: [UNSUP],
    });
  });

  test.each([0, 4, 11, 12, 0xffff_ffff])("%i is refused after its data", (number) => {
    for (const length of [0, 1, 4352]) {
      expect(option(number, Buffer.alloc(length, "a"))).toMatchObject({
        state: going(NOTHING),
        types: [UNSUP],
        data: ["option not supported"],
      });
    }
  });
});

describe("the transmission flags", () => {
  test("never offer several connections, and DF only with structured replies", () => {
    expect(transmissionFlags(SERVED, true)).toBe(0b100_1110_1101);
    expect(transmissionFlags(SERVED, false)).toBe(0b100_0110_1101);
  });

  test("of a read-only export offer nothing that writes", () => {
    expect(transmissionFlags({ ...SERVED, readOnly: true }, true)).toBe(0b100_1000_1111);
  });
});
