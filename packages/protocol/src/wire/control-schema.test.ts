/**
 * Every field of every message, broken in every way that its schema forbids, and at every edge that
 * it allows. The cases are generated from the JSON of the schemas; the expectation comes from this
 * file's own reading of that JSON, the verdict from the codec.
 */
import { describe, expect, test } from "vitest";
import { decodeControl } from "./control-codec.ts";
import { ControlSchemas } from "./control-messages.ts";
import { Entries, naivePack } from "./naive-msgpack.ts";
import { ProtocolError } from "./protocol-error.ts";
import { sampleMessages } from "./sample-messages.ts";

interface JsonSchema {
  readonly type?: string;
  readonly const?: unknown;
  readonly enum?: readonly unknown[];
  readonly anyOf?: readonly JsonSchema[];
  readonly properties?: Readonly<Record<string, JsonSchema>>;
  readonly required?: readonly string[];
  readonly items?: JsonSchema;
  readonly pattern?: string;
  readonly maxLength?: number;
  readonly minimum?: number;
  readonly maximum?: number;
  readonly multipleOf?: number;
  readonly maxItems?: number;
  /** Of the one field that JSON has no type for. */
  readonly bytesMax?: number;
}

interface Variant {
  readonly what: string;
  readonly value: unknown;
  readonly accepted: boolean;
}

/** Of every type that the wire knows, and a few that are nearly right. */
const ANYTHING: readonly unknown[] = [
  ...[null, false, true, [], [0], new Entries(), new Entries(["kind", "token"])],
  ...[Buffer.alloc(0), Buffer.alloc(9)],
  ...[0, -0, 1, -1, 0.5, NaN, Infinity, -Infinity, 2 ** 31, 2 ** 32, 2 ** 53 - 1, 2 ** 53, 1e300],
  ...[-1n, 1n, 2n ** 53n - 1n, 2n ** 53n, 2n ** 53n + 1n, 2n ** 63n, 2n ** 64n - 1n, -(2n ** 63n)],
  ...["", "0", "a", "A", "-", "a b", "../a", "a\n", "a\0", "ä", "😀", "x".repeat(65)],
  ...["x".repeat(5000), "__proto__", "f".repeat(16), "F".repeat(16), "f".repeat(64), "auto"],
];

/** What arrives when the value is sent: the wire has one kind of number. */
function received(value: unknown): unknown {
  return typeof value === "bigint" ? Number(value) : value;
}

function allows(schema: JsonSchema, value: unknown): boolean {
  if (schema.anyOf !== undefined) return schema.anyOf.some((one) => allows(one, value));
  if (schema.enum !== undefined) return schema.enum.includes(value);
  if (schema.const !== undefined) return value === schema.const;
  if (schema.bytesMax !== undefined) {
    return value instanceof Uint8Array && value.length <= schema.bytesMax;
  }
  switch (schema.type) {
    case "string":
      return (
        typeof value === "string" &&
        Array.from(value).length <= (schema.maxLength ?? Infinity) &&
        new RegExp(schema.pattern ?? "").test(value)
      );
    case "integer":
      return (
        Number.isInteger(value) &&
        (value as number) >= (schema.minimum ?? -Infinity) &&
        (value as number) <= (schema.maximum ?? Infinity) &&
        (value as number) % (schema.multipleOf ?? 1) === 0
      );
    case "array":
      return (
        Array.isArray(value) &&
        value.length <= (schema.maxItems ?? Infinity) &&
        value.every((one) => allows(schema.items!, one))
      );
    case "null":
      return value === null;
    case "boolean":
      return typeof value === "boolean";
    case "object":
      return typeof value === "object" && value !== null && allowsFields(schema, value);
    default:
      throw new Error(`this test does not know schemas of type ${schema.type}`);
  }
}

function allowsFields({ properties, required }: JsonSchema, value: object): boolean {
  return (
    required!.every((key) => Object.hasOwn(value, key)) &&
    Object.entries(value).every(([key, each]) => {
      const property = properties![key];
      return property !== undefined && allows(property, each);
    })
  );
}

/** The edges of a schema, on either side. */
function edges(schema: JsonSchema, sample: unknown): unknown[] {
  const { minimum, maximum, maxLength, maxItems, multipleOf = 1, bytesMax } = schema;
  const numbers = [minimum, maximum].flatMap((edge) =>
    edge === undefined ? [] : [edge - multipleOf, edge - 1, edge, edge + 1, edge + multipleOf],
  );
  const lengths = maxLength === undefined ? [] : [maxLength, maxLength + 1];
  // Lengths count characters, not UTF-16 units or bytes.
  const strings = lengths.flatMap((length) => ["a", "é", "😀"].map((one) => one.repeat(length)));
  const counts = maxItems === undefined ? [] : [0, maxItems, maxItems + 1];
  const arrays = counts.map((count) => Array.from({ length: count }, () => itemOf(sample)));
  const bytes = bytesMax === undefined ? [] : [bytesMax, bytesMax + 1].map((n) => Buffer.alloc(n));
  // A good string with something before it, behind it, and one character changed.
  const nearly =
    typeof sample === "string" ? [`${sample}\n`, ` ${sample}`, `${sample.slice(1)}\0`] : [];
  const either = schema.anyOf?.flatMap((one) => edges(one, sample)) ?? [];
  return [
    ...numbers,
    ...strings,
    ...arrays,
    ...bytes,
    ...nearly,
    ...either,
    ...constantsOf(schema),
  ];
}

function itemOf(sample: unknown): unknown {
  return (sample as readonly unknown[])[0];
}

function constantsOf(schema: JsonSchema): readonly unknown[] {
  return schema.enum ?? (schema.const === undefined ? [] : [schema.const]);
}

/** `sample` changed in one place, for every place and every change. */
function* variants(schema: JsonSchema, sample: unknown): Generator<Variant, void> {
  if (schema.type === "object") return yield* objectVariants(schema, sample as object);
  for (const value of [...ANYTHING, ...edges(schema, sample)]) {
    yield { what: describeValue(value), value, accepted: allows(schema, received(value)) };
  }
  if (schema.type !== "array") return;
  const [first, ...rest] = sample as readonly unknown[];
  for (const { what, value, accepted } of variants(schema.items!, first)) {
    yield { what: `[0] ${what}`, value: [value, ...rest], accepted };
  }
}

function* objectVariants(schema: JsonSchema, sample: object): Generator<Variant, void> {
  const properties = schema.properties!;
  for (const value of ANYTHING) yield { what: describeValue(value), value, accepted: false };
  const extras = ["more", "", "Kind", "__proto__", "__proto_", "constructor", "prototype"];
  for (const extra of [...extras, "toString", "hasOwnProperty", "valueOf", "then"]) {
    const value = new Entries(...Object.entries(sample), [extra, 1]);
    yield { what: `and ${JSON.stringify(extra)}`, value, accepted: false };
  }
  for (const [key, property] of Object.entries(properties)) {
    const entries = Object.entries(sample);
    const optional = !schema.required!.includes(key);
    const without = new Entries(...entries.filter(([each]) => each !== key));
    yield { what: `without ${key}`, value: without, accepted: optional };
    for (const variant of variants(property, (sample as Record<string, unknown>)[key])) {
      const { what, value, accepted } = variant;
      const changed = entries.map(([each, old]) => [each, each === key ? value : old] as const);
      yield { what: `${key} ${what}`, value: new Entries(...changed), accepted };
    }
  }
}

function describeValue(value: unknown): string {
  if (typeof value === "bigint" || Object.is(value, -0)) return `= ${String(value)} (64 bits)`;
  if (value instanceof Uint8Array) return `= ${value.length} bytes`;
  if (typeof value === "number") return `= ${value}`;
  return `= ${JSON.stringify(value).slice(0, 40)}`;
}

function isAccepted(bytes: Buffer): boolean {
  try {
    decodeControl(bytes);
    return true;
  } catch (error) {
    if (error instanceof ProtocolError) return false;
    throw error;
  }
}

describe("the schema of every message is enforced, field by field", () => {
  test.each(Object.keys(sampleMessages))("%s", (kind) => {
    const schema = JSON.parse(
      JSON.stringify(ControlSchemas[kind as keyof typeof ControlSchemas]),
    ) as JsonSchema;
    const sample = sampleMessages[kind as keyof typeof sampleMessages];
    expect(isAccepted(naivePack(sample))).toBe(true);
    const wrong: string[] = [];
    const counts = { accepted: 0, refused: 0 };
    for (const { what, value, accepted } of variants(schema, sample)) {
      counts[accepted ? "accepted" : "refused"]++;
      if (isAccepted(naivePack(value)) !== accepted) {
        wrong.push(`${what} should be ${accepted ? "accepted" : "refused"}`);
      }
    }
    expect(wrong).toEqual([]);
    expect(counts.accepted).toBeGreaterThan(0);
    expect(counts.refused).toBeGreaterThan(50);
  });

  test("every level of every message has its fields listed, and no others allowed", () => {
    const open: string[] = [];
    const check = (schema: JsonSchema & { additionalProperties?: unknown }, path: string): void => {
      if (schema.type === "object" && schema.additionalProperties !== false) open.push(path);
      if (schema.type === "string" && schema.const === undefined) {
        if (schema.maxLength === undefined && !/\{\d+(,\d+)?\}/.test(schema.pattern!)) {
          open.push(`${path}: no limit`);
        }
      }
      for (const [key, each] of Object.entries(schema.properties ?? {}))
        check(each, `${path}.${key}`);
      if (schema.items !== undefined) check(schema.items, `${path}[]`);
      if (schema.type === "array" && schema.maxItems === undefined) open.push(`${path}: no limit`);
      for (const one of schema.anyOf ?? []) check(one, path);
    };
    for (const [kind, schema] of Object.entries(ControlSchemas)) {
      check(JSON.parse(JSON.stringify(schema)) as JsonSchema, kind);
    }
    expect(open).toEqual([]);
  });
});

/** Numbers of their own, so that a limit that is changed by mistake is seen. */
describe("what is said about disks has its limits", () => {
  const { offer, stunned, prepared } = sampleMessages;
  const [, disk] = offer.disks;

  test("an offer has 24 disks at most", () => {
    const offered = (count: number): unknown => ({ ...offer, disks: Array(count).fill(disk) });
    for (const count of [0, 1, 24]) expect(isAccepted(naivePack(offered(count)))).toBe(true);
    expect(isAccepted(naivePack(offered(25)))).toBe(false);
  });

  test("as many as its guest may have", () => {
    const disks = Array.from({ length: 24 }, (_, i) => ({ id: `d${i}`, image: `${i}.raw` }));
    const offered = (more: typeof disks): unknown => ({
      ...offer,
      guest: { ...offer.guest, disks: [...disks, ...more] },
      disks: Array(24).fill(disk),
    });
    expect(isAccepted(naivePack(offered([])))).toBe(true);
    expect(isAccepted(naivePack(offered([{ id: "more", image: "more.raw" }])))).toBe(false);
  });

  test.each<[string, readonly unknown[], readonly unknown[]]>([
    ["sizeBytes", [512, 513, 2 ** 45], [0, 511, 512.5, 2 ** 45 + 1, null]],
    ["dataBytes", [0, 1, 2 ** 45], [-1, 0.5, 2 ** 45 + 1, null]],
    ["blockBytes", [65_536, 2 ** 20], [0, 65_535, 2 ** 20 + 1, 2 ** 21, null]],
    [
      "proof",
      [null, "0".repeat(64), "0123456789abcdef".repeat(4)],
      ["", "0".repeat(63), "0".repeat(65), "A".repeat(64), `${"0".repeat(64)}\n`, 0, false],
    ],
  ])("%s of a disk", (field, accepted, refused) => {
    const offered = (value: unknown): unknown => ({
      ...offer,
      disks: [disk, { ...disk, [field]: value }],
    });
    for (const value of accepted) expect(isAccepted(naivePack(offered(value)))).toBe(true);
    for (const value of refused) expect(isAccepted(naivePack(offered(value)))).toBe(false);
  });

  test.each([stunned, prepared])("$kind has 24 digests of disks at most, or none", (message) => {
    const digest = "0123456789abcdef".repeat(4);
    const withDigests = (...diskDigests: readonly unknown[]): Buffer =>
      naivePack({ ...message, diskDigests });
    for (const count of [0, 1, 24]) {
      expect(isAccepted(withDigests(...Array<unknown>(count).fill(digest)))).toBe(true);
    }
    expect(isAccepted(withDigests(...Array<unknown>(25).fill(digest)))).toBe(false);
    for (const wrong of ["", digest.slice(1), `${digest}0`, digest.toUpperCase(), null, 0]) {
      expect(isAccepted(withDigests(digest, wrong))).toBe(false);
    }
  });
});
