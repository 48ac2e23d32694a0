/** For tests: values that a JSON schema allows, of the keywords that the API's document uses. */
import fc from "fast-check";

export interface JsonSchema {
  readonly $ref?: string;
  readonly type?: string | readonly string[];
  readonly enum?: readonly unknown[];
  readonly const?: unknown;
  readonly anyOf?: readonly JsonSchema[];
  readonly properties?: Readonly<Record<string, JsonSchema>>;
  readonly required?: readonly string[];
  readonly items?: JsonSchema;
  readonly maxItems?: number;
  readonly minProperties?: number;
  readonly pattern?: string;
  readonly minLength?: number;
  readonly maxLength?: number;
  readonly minimum?: number;
  readonly maximum?: number;
  readonly multipleOf?: number;
}

export type Definitions = Readonly<Record<string, JsonSchema>>;

/** Whatever `schema` allows; references are to `#/components/schemas`. */
export function valuesOf(schema: JsonSchema, definitions: Definitions): fc.Arbitrary<unknown> {
  const { $ref, type } = schema;
  if ($ref !== undefined) return valuesOf(definitions[$ref.split("/").at(-1)!]!, definitions);
  if (schema.anyOf !== undefined) {
    return fc.oneof(...schema.anyOf.map((each) => valuesOf(each, definitions)));
  }
  if (schema.enum !== undefined) return fc.constantFrom(...schema.enum);
  if ("const" in schema) return fc.constant(schema.const);
  const types = typeof type === "string" ? [type] : (type ?? []);
  return fc.oneof(...types.map((each) => valuesOfType(each, schema, definitions)));
}

function valuesOfType(
  type: string,
  schema: JsonSchema,
  definitions: Definitions,
): fc.Arbitrary<unknown> {
  switch (type) {
    case "null":
      return fc.constant(null);
    case "boolean":
      return fc.boolean();
    case "string":
      return strings(schema);
    case "integer":
      return integers(schema);
    case "array":
      return fc.array(valuesOf(schema.items!, definitions), {
        maxLength: Math.min(3, schema.maxItems ?? 3),
      });
    case "object":
      return objects(schema, definitions);
    default:
      throw new Error(`no values of the type ${type}`);
  }
}

function strings({ pattern, minLength = 0, maxLength = 300 }: JsonSchema): fc.Arbitrary<string> {
  if (pattern === undefined) return fc.string({ minLength, maxLength });
  return fc
    .stringMatching(new RegExp(pattern))
    .filter(({ length }) => length >= minLength && length <= maxLength);
}

function integers({ minimum, maximum, multipleOf = 1 }: JsonSchema): fc.Arbitrary<number> {
  const min = BigInt(Math.ceil((minimum ?? 0) / multipleOf));
  const max = BigInt(Math.floor((maximum ?? Number.MAX_SAFE_INTEGER) / multipleOf));
  return fc.bigInt({ min, max }).map((count) => Number(count) * multipleOf);
}

function objects(schema: JsonSchema, definitions: Definitions): fc.Arbitrary<object> {
  const { properties = {}, required = [], minProperties = 0 } = schema;
  const members = Object.entries(properties).map(([name, each]) => [
    name,
    valuesOf(each, definitions),
  ]);
  return fc
    .record(Object.fromEntries(members) as Record<string, fc.Arbitrary<unknown>>, {
      requiredKeys: [...required],
    })
    .filter((value) => Object.keys(value).length >= minProperties);
}

/** `values` with something else in one place, or one thing too many or too few. */
export function spoilt(values: fc.Arbitrary<unknown>): fc.Arbitrary<unknown> {
  return fc
    .tuple(values, fc.nat(), fc.constantFrom("replace", "remove", "add"), fc.jsonValue())
    .map(([value, at, how, by]) => {
      const copy = structuredClone(value);
      const places = placesIn(copy);
      const place = places[at % (places.length + 1)];
      if (place === undefined) return by;
      if (how === "replace") place.holder[place.key] = by;
      if (how === "remove") Reflect.deleteProperty(place.holder, place.key);
      if (how === "add") place.holder[`${place.key}x`] = by;
      return copy;
    });
}

interface Place {
  readonly holder: Record<string, unknown>;
  readonly key: string;
}

function placesIn(value: unknown): Place[] {
  if (typeof value !== "object" || value === null) return [];
  const holder = value as Record<string, unknown>;
  return Object.entries(holder).flatMap(([key, each]) => [{ holder, key }, ...placesIn(each)]);
}
