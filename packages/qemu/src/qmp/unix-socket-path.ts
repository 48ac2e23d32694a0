/** `sun_path` holds 108 bytes on Linux, one of them for the NUL at the end. */
export const UNIX_SOCKET_PATH_BYTES_MAX = 107;

export function unixSocketPathBytes(path: string): number {
  return Buffer.byteLength(path, "utf8");
}
