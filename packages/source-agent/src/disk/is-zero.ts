const ZEROS = Buffer.alloc(1024 * 1024);

/** @param content at most 1 MiB */
export function isZero(content: Buffer): boolean {
  // Nearly every block that is not zero shows it in its first bytes.
  if (content[0] !== 0 || content[content.length - 1] !== 0) return false;
  return content.equals(ZEROS.subarray(0, content.length));
}
