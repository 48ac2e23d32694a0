/**
 * The wire is a contract with agents of other releases. This test notices every change of it, also
 * one that comes from elsewhere: the guest definition of the HTTP API travels in `offer`.
 */
import { createHash } from "node:crypto";
import { readFileSync } from "node:fs";
import { describe, expect, test } from "vitest";
import { BlockContent, BlockKind, Urgency } from "./block-message.ts";
import { FrameEncoding, FrameKind, ZERO_RUN } from "./bulk-frame.ts";
import { ControlSchemas } from "./control-messages.ts";
import { DiskOperation } from "./disk-frame.ts";
import { FEATURES } from "./hello.ts";
import * as limits from "./limits.ts";
import { PageLaneNumber, PageMessageKind } from "./page-message.ts";
import { CloseCode } from "./protocol-error.ts";

const PINNED_HASH = "63e5d6e99f6e2cba0abe30ac3980a052655e5818638b439d409cdbd18c7e9a96";

const contract = {
  ControlSchemas,
  limits,
  FrameKind,
  FrameEncoding,
  DiskOperation,
  PageMessageKind,
  PageLaneNumber,
  BlockKind,
  BlockContent,
  Urgency,
  ZERO_RUN,
  CloseCode,
  FEATURES,
};
const documentation = readFileSync(
  new URL("../../../../docs/protocol.md", import.meta.url),
  "utf8",
);

const INSTRUCTIONS = `
The wire between the agents has changed. An agent of the last release may be at the other end, so
  1. either raise PROTOCOL_VERSION in limits.ts, and keep speaking the old version while
     PROTOCOL_VERSION_MIN names it,
  2. or prove that the change is additive: every message and frame that this build sends without an
     agreed feature is accepted by the last release, and every one that the last release sends is
     accepted by this build;
  3. then change docs/protocol.md, and put the new hash there and into PINNED_HASH of this test.
`;

/** JSON with sorted keys: the order in which a schema is written down means nothing. */
function canonical(value: unknown): string {
  return JSON.stringify(value, (_, each: unknown) =>
    typeof each === "object" && each !== null && !Array.isArray(each)
      ? Object.fromEntries(Object.entries(each).sort(([a], [b]) => (a < b ? -1 : 1)))
      : each,
  );
}

test("the wire is that of the pinned hash", () => {
  const hash = createHash("sha256").update(canonical(contract)).digest("hex");
  expect(hash, INSTRUCTIONS).toBe(PINNED_HASH);
});

describe("docs/protocol.md", () => {
  /** Cells of the table row that begins with `name`. */
  function row(name: string): readonly string[] {
    const line = documentation.split("\n").find((each) => each.startsWith(`| \`${name}\` |`));
    expect(line, `a row for ${name}`).toBeDefined();
    return line!.split("|").map((cell) => cell.trim());
  }

  /** The second cells of all rows that begin with `name`: a frame may have the name of a message. */
  function numbersOf(name: string): readonly string[] {
    const lines = documentation.split("\n").filter((each) => each.startsWith(`| \`${name}\` |`));
    return lines.map((line) => line.split("|")[2]!.trim());
  }

  test("names the pinned hash", () => {
    expect(documentation).toContain(`\`${PINNED_HASH}\``);
  });

  test.each(Object.entries(limits))("has the limit %s = %d", (name, value) => {
    expect(row(name)[2]!.replaceAll(" ", "")).toBe(String(value));
  });

  const numbers = [CloseCode, FrameKind, DiskOperation, PageMessageKind, BlockKind].flatMap(
    (each) => Object.entries(each),
  );
  test.each(numbers)("has the number of %s: %d", (name, value) => {
    expect(numbersOf(name)).toContain(String(value));
  });

  test.each(Object.entries(ControlSchemas))("has %s with all of its fields", (kind, schema) => {
    const fields = row(kind)[3]!;
    const expanded = fields.replace("*about*", "`migrationId` `epoch` `generation` `incarnation`");
    const named = [...expanded.matchAll(/`([a-zA-Z]+)`/g)].map(([, field]) => field);
    const required = Object.keys(schema.properties).filter((field) => field !== "kind");
    expect(named).toEqual(required);
  });

  test("has no line that is longer than 140 characters, but for rows of tables", () => {
    const lines = documentation.split("\n").filter((line) => !line.startsWith("|"));
    expect(lines.filter((line) => line.length > 140)).toEqual([]);
  });
});
