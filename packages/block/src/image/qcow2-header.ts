/**
 * As much of the header of a qcow2 image as decides whether a guest may have it, from QEMU's
 * docs/interop/qcow2.txt. Everything is big-endian:
 *
 *    0 u32 magic "QFI\xfb"     4 u32 version, 2 or 3
 *    8 u64 backing file offset, 0 = none
 *   24 u64 size of the disk   32 u32 encryption, 0 = none
 *   72 u64 incompatible features, version 3: bit 1 corrupt, bit 2 data in another file
 */
import { open } from "node:fs/promises";
import { imageNotUsable } from "./image-error.ts";

const MAGIC = 0x514649fb;
const HEADER_BYTES = 80;
const HEADER_BYTES_V2 = 72;
const CORRUPT = 2n;
const EXTERNAL_DATA = 4n;

export interface Qcow2Header {
  /** Of the disk that the guest sees. */
  readonly sizeBytes: number;
}

/**
 * Rejects with `image-not-usable` for what is no qcow2 image, or leads QEMU to another file: an
 * image is content that a guest or a peer may have written, and must not name files of this host.
 */
export async function inspectQcow2(path: string): Promise<Qcow2Header> {
  const file = await open(path, "r");
  try {
    const header = Buffer.alloc(HEADER_BYTES);
    const { bytesRead } = await file.read(header, 0, HEADER_BYTES, 0);
    const refusal = bytesRead < HEADER_BYTES_V2 ? "it is no qcow2 image" : refusalOf(header);
    if (refusal !== null) throw imageNotUsable(path, refusal);
    return { sizeBytes: Number(header.readBigUInt64BE(24)) };
  } finally {
    await file.close();
  }
}

function refusalOf(header: Buffer): string | null {
  const version = header.readUInt32BE(4);
  if (header.readUInt32BE(0) !== MAGIC || (version !== 2 && version !== 3)) {
    return "it is no qcow2 image";
  }
  if (header.readBigUInt64BE(8) !== 0n) return "it stands on a backing file: flatten it first";
  if (header.readUInt32BE(32) !== 0) return "it is encrypted";
  const size = header.readBigUInt64BE(24);
  if (size === 0n || size > BigInt(Number.MAX_SAFE_INTEGER)) return "its size is no disk's";
  if (version === 2) return null;
  const features = header.readBigUInt64BE(72);
  if ((features & EXTERNAL_DATA) !== 0n) return "its data lie in another file";
  return (features & CORRUPT) === 0n ? null : "it says that it is corrupt: repair it first";
}
