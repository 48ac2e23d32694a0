/** What the grammar asks for next; it goes on once it has been given that. */
export type Want =
  /** So many bytes in the record buffer that were not read yet. */
  | { readonly kind: "record"; readonly bytes: number }
  /** So many bytes handed on as they are, in pieces, kept nowhere. */
  | { readonly kind: "verbatim"; readonly bytes: number }
  /** RAM records up to EOS. */
  | { readonly kind: "ram" }
  /** All that is still to come, as device state. */
  | { readonly kind: "rest" }
  /** Not a byte more. */
  | { readonly kind: "nothing" };

/** A piece of the grammar: it asks for bytes and ends with what it read from them. */
export type Reading<Result> = Generator<Want, Result, void>;

export function unread(bytes: number): Want {
  return { kind: "record", bytes };
}
