import { assert } from "@vmferry/core";

import { encodeBlockName, type RamBlock } from "./ram-block.ts";
import { COMMAND } from "./stream-command.ts";
import { PAGE_BYTES, RECORD } from "./stream-format.ts";

/** PING inside the package: its answer says that the dest has loaded every device. */
export const PACKAGE_PING = 3;

/** As many ranges as QEMU puts into one command. */
const DISCARD_RANGES_MAX = 12;

/** Answered by PONG with the same value. */
export function encodePing(value: number): Buffer {
  const payload = Buffer.alloc(4);
  payload.writeUInt32BE(value, 0);
  return encodeCommand(COMMAND.PING, payload);
}

/**
 * Tells the dest, before RAM is announced, that pages may come after the guest runs there. Host
 * pages are those of the host itself: a block in larger ones would announce them in a list that an
 * ordinary migration does not have.
 */
export function encodePostcopyAdvise(): Buffer {
  const payload = Buffer.alloc(16);
  payload.writeBigUInt64BE(BigInt(PAGE_BYTES), 0);
  payload.writeBigUInt64BE(BigInt(PAGE_BYTES), 8);
  return encodeCommand(COMMAND.POSTCOPY_ADVISE, payload);
}

/**
 * What a package of device state begins and ends with; so many bytes of FULL sections have to stand
 * between the two. The dest reads it as a whole before it loads any of it.
 */
export function encodePackageEdges(deviceStateBytes: number): {
  readonly head: Buffer;
  readonly end: Buffer;
} {
  const listen = encodeCommand(COMMAND.POSTCOPY_LISTEN, Buffer.alloc(0));
  const run = encodeCommand(COMMAND.POSTCOPY_RUN, Buffer.alloc(0));
  const end = Buffer.concat([encodePing(PACKAGE_PING), run]);
  const packageBytes = listen.length + deviceStateBytes + end.length;
  return { head: Buffer.concat([encodePackageHeader(packageBytes), listen]), end };
}

/** Nothing follows: the last byte of a stream. */
export function encodeEof(): Buffer {
  return Buffer.of(RECORD.EOF);
}

/** What stands before the bytes of a package. */
export function encodePackageHeader(packageBytes: number): Buffer {
  const payload = Buffer.alloc(4);
  payload.writeUInt32BE(packageBytes, 0);
  return encodeCommand(COMMAND.PACKAGED, payload);
}

/** Ranges of pages that the dest forgets before post-copy; as many commands as that takes. */
export function encodeRamDiscards(
  block: RamBlock,
  ranges: readonly { readonly firstPage: number; readonly pageCount: number }[],
): Buffer {
  const head = Buffer.concat([Buffer.of(0), encodeBlockName(block.name), Buffer.of(0)]);
  const commands: Buffer[] = [];
  for (let at = 0; at < ranges.length; at += DISCARD_RANGES_MAX) {
    const some = ranges.slice(at, at + DISCARD_RANGES_MAX);
    const payload = Buffer.alloc(head.length + some.length * 16);
    let end = head.copy(payload);
    for (const { firstPage, pageCount } of some) {
      const isInside = (firstPage + pageCount) * PAGE_BYTES <= block.lengthBytes;
      assert(firstPage >= 0 && pageCount > 0 && isInside, "a discarded range lies in its block");
      end = payload.writeBigUInt64BE(BigInt(firstPage * PAGE_BYTES), end);
      end = payload.writeBigUInt64BE(BigInt(pageCount * PAGE_BYTES), end);
    }
    commands.push(encodeCommand(COMMAND.POSTCOPY_RAM_DISCARD, payload));
  }
  return Buffer.concat(commands);
}

/** Asks the dest which pages of the block it has; answered by RECV_BITMAP on the return path. */
export function encodeBitmapRequest(block: string): Buffer {
  return encodeCommand(COMMAND.RECV_BITMAP, encodeBlockName(block));
}

/** Post-copy goes on over this connection; answered by RESUME_ACK. */
export function encodePostcopyResume(): Buffer {
  return encodeCommand(COMMAND.POSTCOPY_RESUME, Buffer.alloc(0));
}

function encodeCommand(command: number, payload: Buffer): Buffer {
  const head = Buffer.alloc(5);
  let at = head.writeUInt8(RECORD.COMMAND, 0);
  at = head.writeUInt16BE(command, at);
  head.writeUInt16BE(payload.length, at);
  return Buffer.concat([head, payload]);
}
