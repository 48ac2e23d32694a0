/**
 * Reading and writing at a place of an open file, with one promise a request: the promises API of
 * node:fs makes several, and a FileHandle whose finalizer may close what is still in use.
 */
import { fdatasync, read, write } from "node:fs";

/** More than any request; what one call of node:fs takes at most is 2 GiB. */
const CALL_BYTES_MAX = 2 ** 30;

/** Fills `buffer` from `position` on; resolves with fewer bytes than that only at the file's end. */
export function readFully(fd: number, buffer: Buffer, position: number): Promise<number> {
  return new Promise((resolve, reject) => {
    let doneBytes = 0;
    const step = (): void => {
      const bytes = Math.min(buffer.length - doneBytes, CALL_BYTES_MAX);
      read(fd, buffer, doneBytes, bytes, position + doneBytes, (error, bytesRead) => {
        doneBytes += bytesRead;
        if (error !== null) reject(error);
        else if (bytesRead === 0 || doneBytes === buffer.length) resolve(doneBytes);
        else step();
      });
    };
    step();
  });
}

export function writeFully(fd: number, buffer: Buffer, position: number): Promise<void> {
  return new Promise((resolve, reject) => {
    let doneBytes = 0;
    const step = (): void => {
      const bytes = Math.min(buffer.length - doneBytes, CALL_BYTES_MAX);
      write(fd, buffer, doneBytes, bytes, position + doneBytes, (error, bytesWritten) => {
        doneBytes += bytesWritten;
        if (error !== null) reject(error);
        else if (doneBytes === buffer.length) resolve();
        else if (bytesWritten === 0) reject(new Error("the file takes no more bytes"));
        else step();
      });
    };
    step();
  });
}

export function datasync(fd: number): Promise<void> {
  return new Promise((resolve, reject) => {
    fdatasync(fd, (error) => {
      if (error === null) resolve();
      else reject(error);
    });
  });
}
