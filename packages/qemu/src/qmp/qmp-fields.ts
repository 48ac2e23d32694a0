import { QmpError } from "./qmp-error.ts";
import type { UncheckedObject } from "./qmp-line-reader.ts";

/**
 * Reads named members of an object that QEMU sent. QEMU may be under the control of its guest, so
 * each member that is relied on is checked, and only own members count.
 */
export class QmpFields {
  readonly #value: UncheckedObject;
  readonly #where: string;

  /** `where` says what is read, for the error: a command or an event. */
  constructor(value: unknown, where: string) {
    if (typeof value !== "object" || value === null || Array.isArray(value)) {
      throw unexpectedShape(where, "(itself)");
    }
    this.#value = value as UncheckedObject;
    this.#where = where;
  }

  string(name: string): string {
    const value = this.#get(name);
    if (typeof value !== "string") throw unexpectedShape(this.#where, name);
    return value;
  }

  stringOrNull(name: string): string | null {
    return this.#get(name) === undefined ? null : this.string(name);
  }

  boolean(name: string): boolean {
    const value = this.#get(name);
    if (typeof value !== "boolean") throw unexpectedShape(this.#where, name);
    return value;
  }

  booleanOrNull(name: string): boolean | null {
    return this.#get(name) === undefined ? null : this.boolean(name);
  }

  /** A whole number of at least 0 that a JavaScript number holds exactly. */
  count(name: string): number {
    const count = this.countOrNull(name);
    if (count === null) throw unexpectedShape(this.#where, name);
    return count;
  }

  /** As `count`; null also for a number that cannot be held, as QEMU's estimates sometimes are. */
  countOrNull(name: string): number | null {
    const value = this.#get(name);
    if (value === undefined) return null;
    if (typeof value !== "number") throw unexpectedShape(this.#where, name);
    return Number.isSafeInteger(value) && value >= 0 ? value : null;
  }

  /** A whole number of either sign. */
  integer(name: string): number {
    const value = this.#get(name);
    if (typeof value !== "number" || !Number.isSafeInteger(value)) {
      throw unexpectedShape(this.#where, name);
    }
    return value;
  }

  /** A number of at least 0, with fractions. */
  amount(name: string): number {
    const value = this.#get(name);
    if (typeof value !== "number" || !(value >= 0)) throw unexpectedShape(this.#where, name);
    return value;
  }

  oneOf<Choice extends string>(name: string, choices: readonly Choice[]): Choice {
    const value = this.#get(name);
    const choice = choices.find((candidate) => candidate === value);
    if (choice === undefined) throw unexpectedShape(this.#where, name);
    return choice;
  }

  fields(name: string): QmpFields {
    return new QmpFields(this.#get(name), `${this.#where}.${name}`);
  }

  fieldsOrNull(name: string): QmpFields | null {
    return this.#get(name) === undefined ? null : this.fields(name);
  }

  /** The object as it came, to be read later through fields of its own. */
  objectOrEmpty(name: string): UncheckedObject {
    const value = this.#get(name);
    if (value === undefined) return {};
    if (typeof value !== "object" || value === null || Array.isArray(value)) {
      throw unexpectedShape(this.#where, name);
    }
    return value as UncheckedObject;
  }

  /** As it came: for who reads it further. */
  value(name: string): unknown {
    return this.#get(name);
  }

  list(name: string): readonly unknown[] {
    const value = this.#get(name);
    if (!Array.isArray(value)) throw unexpectedShape(this.#where, name);
    return value;
  }

  stringsOrNone(name: string): readonly string[] {
    const value = this.#get(name);
    if (value === undefined) return [];
    if (!isStrings(value)) throw unexpectedShape(this.#where, name);
    return value;
  }

  #get(name: string): unknown {
    return Object.hasOwn(this.#value, name) ? this.#value[name] : undefined;
  }
}

/** Reads a list of objects. */
export function readList<Item>(
  value: unknown,
  where: string,
  read: (fields: QmpFields) => Item,
): readonly Item[] {
  if (!Array.isArray(value)) throw unexpectedShape(where, "(itself)");
  return value.map((item) => read(new QmpFields(item, where)));
}

function isStrings(value: unknown): value is readonly string[] {
  return Array.isArray(value) && value.every((item) => typeof item === "string");
}

function unexpectedShape(where: string, field: string): QmpError {
  return new QmpError(`QEMU sent ${where} with an unexpected ${field}`, {
    code: "qmp-unexpected-shape",
    where,
    field,
  });
}
