/**
 * The key of one page file, and what is sealed with it: AES-256-GCM. The key is derived from a
 * secret of both agents and the file's own salt, so that no two files have the same one. The nonce
 * is what it is for and the place in the file. A file is only ever appended to, by one writer, so
 * that no nonce comes twice, and there is one thing that can be sealed at any place.
 */
import {
  createCipheriv,
  createDecipheriv,
  createSecretKey,
  hkdfSync,
  type KeyObject,
} from "node:crypto";
import { assert } from "@vmferry/core";

export const SALT_BYTES = 32;
export const KEY_ID_BYTES = 8;
export const TAG_BYTES = 16;
export const SECRET_BYTES_MIN = 32;

export type SealPurpose = "header" | "record" | "page";

const PURPOSE_NUMBERS: Readonly<Record<SealPurpose, number>> = { header: 1, record: 2, page: 3 };
const ALGORITHM = "aes-256-gcm";
const OPTIONS = { authTagLength: TAG_BYTES };
const KEY_BYTES = 32;
const NONCE_BYTES = 12;

export interface SealPlace {
  readonly purpose: SealPurpose;
  /** Of what is sealed, in the file. */
  readonly offset: number;
  /** What else has to be the same when it is opened. */
  readonly context: Uint8Array;
}

export class FileSeal {
  /** Says which secret it is, without telling anything of it. */
  readonly keyId: Buffer;
  readonly #key: KeyObject;
  readonly #nonce = Buffer.alloc(NONCE_BYTES);

  constructor(secret: Uint8Array, salt: Uint8Array) {
    assert(secret.length >= SECRET_BYTES_MIN, "a page file's secret is long enough");
    assert(salt.length === SALT_BYTES, "a page file's salt has its length");
    const derive = (what: string, bytes: number): Buffer =>
      Buffer.from(hkdfSync("sha256", secret, salt, `vmferry page file 1 ${what}`, bytes));
    this.keyId = derive("key id", KEY_ID_BYTES);
    this.#key = createSecretKey(derive("key", KEY_BYTES));
  }

  /** Writes the sealed bytes, and their tag behind them, to `target` from `at` on. */
  seal(place: SealPlace, bytes: Uint8Array, target: Buffer, at: number): void {
    const cipher = createCipheriv(ALGORITHM, this.#key, this.#nonceOf(place), OPTIONS);
    cipher.setAAD(place.context);
    if (bytes.length > 0) target.set(cipher.update(bytes), at);
    cipher.final();
    target.set(cipher.getAuthTag(), at + bytes.length);
  }

  /** Null where they were not sealed with this key, at this place and in this context. */
  open(place: SealPlace, sealed: Uint8Array): Buffer | null {
    const tagAt = sealed.length - TAG_BYTES;
    assert(tagAt >= 0, "what is sealed has a tag");
    const decipher = createDecipheriv(ALGORITHM, this.#key, this.#nonceOf(place), OPTIONS);
    decipher.setAAD(place.context);
    decipher.setAuthTag(sealed.subarray(tagAt));
    const opened = decipher.update(sealed.subarray(0, tagAt));
    try {
      decipher.final();
    } catch {
      // The one thing that it throws for.
      return null;
    }
    return opened;
  }

  #nonceOf({ purpose, offset }: SealPlace): Buffer {
    this.#nonce.writeUInt32BE(PURPOSE_NUMBERS[purpose]);
    this.#nonce.writeUInt32BE(Math.floor(offset / 2 ** 32), 4);
    this.#nonce.writeUInt32BE(offset % 2 ** 32, 8);
    return this.#nonce;
  }
}
