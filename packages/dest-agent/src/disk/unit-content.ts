/** What an answer of the source says that units hold, checked against their hash. */
import type { DiskHashes } from "@vmferry/agent";
import { BlockContent, violation, type BlocksMessage } from "@vmferry/protocol";
import { inflateData } from "../bulk/inflate-data.ts";

export type UnitContent =
  | { readonly kind: "data"; readonly data: Buffer; readonly hash: bigint }
  | { readonly kind: "zero"; readonly mayPunch: boolean }
  | { readonly kind: "unreadable" };

/** Throws ProtocolError for what is not the content of such a unit. */
export function unitContent(
  { content, first, data, hash }: BlocksMessage,
  { hashes, compression }: { readonly hashes: DiskHashes; readonly compression: boolean },
): UnitContent {
  switch (content) {
    case BlockContent.ZERO:
    case BlockContent.HOLE:
      return { kind: "zero", mayPunch: content === BlockContent.HOLE };
    case BlockContent.UNREADABLE:
      return { kind: "unreadable" };
    case BlockContent.RAW:
    case BlockContent.ZSTD: {
      const length = hashes.lengthOf(first);
      if (content === BlockContent.ZSTD && !compression)
        throw violation("zstd without its feature");
      const unit = content === BlockContent.ZSTD ? inflated(data, length) : data;
      if (unit.length !== length) throw violation("unit of another length");
      if (hashes.hash(unit) !== hash) throw violation("unit of another hash");
      return { kind: "data", data: unit, hash };
    }
  }
}

function inflated(compressed: Buffer, length: number): Buffer {
  const unit = Buffer.allocUnsafeSlow(length);
  inflateData(compressed, unit);
  return unit;
}
