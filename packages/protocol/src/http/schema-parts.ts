import { Type, type TInteger, type TNumber, type TString, type TUnsafe } from "typebox";

/** Guests and peers are called this: safe in a path, in a QEMU option and in a log line. */
export const NAME_PATTERN = "^[a-zA-Z0-9][a-zA-Z0-9_.-]{0,63}$";

/** An amount of bytes, passes or requests: never negative, exact in a double. */
export const CountSchema = Type.Integer({ minimum: 0, maximum: Number.MAX_SAFE_INTEGER });

/** RFC 3339, as `Date.toISOString()` writes it. */
export const TimestampSchema = Type.String({ format: "date-time" });

/**
 * The schema that also takes null, which means "not known" in answers and "no limit" in requests.
 * One schema with two types, not a union: a wrong value then gives one error instead of three.
 */
export function nullable(schema: TString, options?: { default: null }): TUnsafe<string | null>;
export function nullable(
  schema: TInteger | TNumber,
  options?: { default: null },
): TUnsafe<number | null>;
export function nullable(
  schema: TString | TInteger | TNumber,
  options?: { default: null },
): TUnsafe<string | number | null> {
  return Type.Unsafe<string | number | null>({
    ...schema,
    ...options,
    type: [schema.type, "null"],
  });
}
