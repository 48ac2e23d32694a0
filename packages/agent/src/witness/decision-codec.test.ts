import fc from "fast-check";
import { describe, expect, test } from "vitest";
import {
  decodeDecision,
  DECISION_BYTES_MAX,
  encodeDecision,
  type DecisionRecord,
} from "./decision-codec.ts";

const record: DecisionRecord = {
  decision: "taken",
  migrationId: "70b2bbb6-030f-480c-9b0c-eb34712b67a1",
  epoch: 8,
  generation: 1,
  incarnation: "1b4e28ba-2fa1-11d2-883f-0016d3cca427",
};
const TEXT =
  '{"version":1,"decision":"taken","migrationId":"70b2bbb6-030f-480c-9b0c-eb34712b67a1",' +
  '"epoch":8,"generation":1,"incarnation":"1b4e28ba-2fa1-11d2-883f-0016d3cca427"}';
const id = fc.stringMatching(/^[0-9a-zA-Z-]{1,64}$/);
const count = fc.maxSafeNat();

describe("a decision in a file", () => {
  test("is text that a person can read, and says what it said before", () => {
    expect(encodeDecision(record).toString()).toBe(TEXT);
    expect(decodeDecision(Buffer.from(TEXT))).toMatchObject(record);
  });

  test("is never longer than what is read of it", () => {
    const decision = fc.constantFrom("taken" as const, "revoked" as const);
    const records = fc.record({
      decision,
      migrationId: id,
      epoch: count,
      generation: count,
      incarnation: id,
    });
    fc.assert(
      fc.property(records, (any) => {
        const bytes = encodeDecision(any);
        expect(bytes.length).toBeLessThan(DECISION_BYTES_MAX / 2);
        expect(decodeDecision(bytes)).toMatchObject(any);
      }),
    );
  });

  test.each([
    ["a migration's id with a slash", { migrationId: "../1" }],
    ["an epoch that is no count", { epoch: -1 }],
    ["a generation beyond the safe integers", { generation: 2 ** 53 }],
    ["an incarnation that is none", { incarnation: "" }],
  ])("is not written with %s", (_what, change) => {
    expect(() => encodeDecision({ ...record, ...change })).toThrow("can be read");
  });
});

describe("what is no decision", () => {
  test("is any part of one", () => {
    for (let length = 0; length < TEXT.length; length++) {
      expect(decodeDecision(Buffer.from(TEXT.slice(0, length))), `${length} bytes`).toBeNull();
    }
  });

  test.each([
    ["one with something behind it", `${TEXT}x`],
    ["two", TEXT + TEXT],
    ["one of another version", TEXT.replace('"version":1', '"version":2')],
    ["another word", TEXT.replace("taken", "granted")],
    ["one with a field that is not known", TEXT.replace("{", '{"also":1,')],
    ["one without a generation", TEXT.replace('"generation":1,', "")],
    ["one with an epoch in quotes", TEXT.replace('"epoch":8', '"epoch":"8"')],
    ["a list", `[${TEXT}]`],
    ["null", "null"],
    ["zeros", "\0".repeat(TEXT.length)],
    ["one with a mark of its byte order", `\uFEFF${TEXT}`],
    ["one that is too long", TEXT + " ".repeat(DECISION_BYTES_MAX)],
  ])("is %s", (_what, text) => {
    expect(decodeDecision(Buffer.from(text))).toBeNull();
  });

  test("is one that is no text", () => {
    const bytes = Buffer.from(TEXT);
    bytes[TEXT.indexOf("70b2")] = 0xff;
    expect(decodeDecision(bytes)).toBeNull();
  });
});
