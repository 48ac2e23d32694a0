import { FileSeal, TAG_BYTES } from "./file-seal.ts";
import {
  decodeHeader,
  HEADER_START_BYTES,
  readHeaderStart,
  type PageFileSubject,
} from "./header-codec.ts";
import {
  pageFileDamaged,
  pageFileForeign,
  pageFileTooNew,
  pageFileTruncated,
} from "./page-file-error.ts";
import { readFully, type ReadableFile } from "./page-files.ts";

export interface ExpectedPageFile {
  readonly path: string;
  readonly subject: PageFileSubject;
  readonly secret: Uint8Array;
}

export interface CheckedHeader {
  readonly seal: FileSeal;
  readonly headerBytes: number;
  readonly headerTag: Buffer;
}

/** Reads the header of what should be the expected file. Rejects with what is wrong with it. */
export async function checkHeader(
  file: ReadableFile,
  { path, subject, secret }: ExpectedPageFile,
): Promise<CheckedHeader> {
  const start = await readHeader(file, path, HEADER_START_BYTES);
  const known = readHeaderStart(start);
  if (known === null) throw pageFileDamaged(path, 0, "it does not begin as a page file");
  if ("version" in known) throw pageFileTooNew(path, known.version);
  const bytes = await readHeader(file, path, known.headerBytes);
  const checked = bytes.subarray(0, -TAG_BYTES);
  const header = decodeHeader(checked);
  if (header === null) throw pageFileDamaged(path, 0, "its header is not as it was written");
  const difference = differenceOf(header, subject);
  if (difference !== null) throw pageFileForeign(path, `it is of another ${difference}`);
  const seal = new FileSeal(secret, header.salt);
  if (!seal.keyId.equals(header.keyId)) throw pageFileForeign(path, "it is of another key");
  const headerTag = bytes.subarray(-TAG_BYTES);
  const place = { purpose: "header", offset: 0, context: checked } as const;
  if (seal.open(place, headerTag) === null) {
    throw pageFileDamaged(path, 0, "its header is not as its writer sealed it");
  }
  return { seal, headerBytes: known.headerBytes, headerTag };
}

async function readHeader(file: ReadableFile, path: string, bytes: number): Promise<Buffer> {
  const buffer = Buffer.alloc(bytes);
  const readBytes = await readFully(file, buffer, 0);
  if (readBytes < bytes) throw pageFileTruncated(path, readBytes);
  return buffer;
}

function differenceOf(found: PageFileSubject, expected: PageFileSubject): string | null {
  if (found.uuid !== expected.uuid || found.guestName !== expected.guestName) return "guest";
  if (found.migrationId !== expected.migrationId) return "migration";
  if (found.epoch !== expected.epoch) return "epoch";
  if (found.scope !== expected.scope) return "scope";
  const isSame =
    found.blocks.length === expected.blocks.length &&
    found.blocks.every(({ name, lengthBytes }, i) => {
      const block = expected.blocks[i]!;
      return name === block.name && lengthBytes === block.lengthBytes;
    });
  return isSame ? null : "memory";
}
