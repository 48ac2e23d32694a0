import { ByteReader } from "@vmferry/core";
import { REQUEST_MAGIC } from "./nbd-constants.ts";
import { violation } from "./nbd-error.ts";

/** A request's header as it came; nothing of it is checked but the magic. */
export interface NbdRequest {
  readonly flags: number;
  readonly command: number;
  /** The client's name for the request; comes back with the reply. */
  readonly cookie: bigint;
  readonly offset: bigint;
  readonly length: number;
}

/** request = magic:u32 flags:u16 command:u16 cookie:u64 offset:u64 length:u32 */
export function decodeRequest(header: Uint8Array): NbdRequest {
  const reader = new ByteReader(header);
  if (reader.u32("magic") !== REQUEST_MAGIC) throw violation("request magic");
  const request = {
    flags: reader.u16("flags"),
    command: reader.u16("command"),
    cookie: reader.u64("cookie"),
    offset: reader.u64("offset"),
    length: reader.u32("length"),
  };
  reader.end();
  return request;
}
