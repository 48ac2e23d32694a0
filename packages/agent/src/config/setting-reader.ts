import { messageOf } from "@vmferry/core";
import type { RawValue, SettingLayer } from "./setting-layer.ts";
import type { SettingKey } from "./setting-table.ts";

export type ReadFile = (path: string) => string;

// As much as an HTTP header line can carry, and nothing that would end it.
const TOKEN = /^[\x21-\x7e]{1,512}$/;

/**
 * Looks settings up in the layers, the strongest first, and turns their text into values. What is
 * wrong is collected, so that an operator sees all of it at once; the value then is the default.
 */
export class SettingReader {
  readonly problems: string[] = [];
  readonly #layers: readonly SettingLayer[];
  readonly #readFile: ReadFile;

  constructor(layers: readonly SettingLayer[], readFile: ReadFile) {
    this.#layers = layers;
    this.#readFile = readFile;
  }

  text(key: SettingKey): string | undefined {
    return this.#find(key)?.text;
  }

  /** `parse` gives null where the text is not `expected`. */
  parsed<Value>(
    key: SettingKey,
    expected: string,
    parse: (text: string) => Value | null,
  ): Value | undefined {
    const raw = this.#find(key);
    if (raw === undefined) return undefined;
    const value = parse(raw.text);
    if (value !== null) return value;
    this.problems.push(`${raw.origin} is "${raw.text}" and has to be ${expected}`);
    return undefined;
  }

  /** A secret, or the content of the file that holds it. The stronger layer wins, not the file. */
  secret(key: SettingKey, fileKey: SettingKey): string | null {
    for (const { values } of this.#layers) {
      const direct = values.get(key);
      const file = values.get(fileKey);
      if (direct !== undefined && file !== undefined) {
        this.problems.push(`${direct.origin} and ${file.origin} are both given: one is enough`);
        return null;
      }
      if (direct !== undefined) return this.#token(direct.text, direct.origin);
      if (file !== undefined) return this.#tokenFrom(file);
    }
    return null;
  }

  refuse(key: SettingKey, why: string): void {
    const raw = this.#find(key);
    if (raw !== undefined) this.problems.push(`${raw.origin}: ${why}`);
  }

  #find(key: SettingKey): RawValue | undefined {
    return this.#layers.map(({ values }) => values.get(key)).find((raw) => raw !== undefined);
  }

  #tokenFrom({ text: path, origin }: RawValue): string | null {
    try {
      return this.#token(this.#readFile(path).trimEnd(), `the content of ${path}`);
    } catch (error) {
      this.problems.push(`${origin}: ${messageOf(error)}`);
      return null;
    }
  }

  /** The message never shows the token. */
  #token(text: string, origin: string): string | null {
    if (TOKEN.test(text)) return text;
    this.problems.push(`${origin} has to be one word of visible ASCII characters`);
    return null;
  }
}
