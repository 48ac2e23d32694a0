import { StreamError } from "./stream-error.ts";

/** What a decoder accepts; each is tested before a byte of what it limits is kept. */
export interface StreamLimits {
  readonly blockCountMax: number;
  readonly ramBytesMax: number;
  /** The package is kept until the guest runs at the dest; without large devices it is some 40 KiB. */
  readonly packagedBytesMax: number;
}

export const DEFAULT_STREAM_LIMITS: StreamLimits = {
  blockCountMax: 256,
  ramBytesMax: 2 ** 50,
  packagedBytesMax: 2 ** 26,
};

export function checkLimit(field: string, value: number, limit: number): void {
  if (value <= limit) return;
  throw new StreamError(`${field} is ${value}, over the limit of ${limit}`, {
    code: "stream-over-limit",
    field,
    value,
    limit,
  });
}
