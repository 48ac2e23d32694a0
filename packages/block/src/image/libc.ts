/**
 * The system calls that Node lacks, for Linux on x64 and arm64, where the plain names take 64-bit
 * offsets in glibc and musl alike. Each one runs in the thread pool, for none is sure to be quick:
 * even lseek waits for a write of the same file to let go of it. Rejects with an error that has
 * `code`, `errno` and `syscall` as those of node:fs have.
 */
import { constants } from "node:os";
import { getSystemErrorMessage, getSystemErrorName } from "node:util";
import { assert } from "@vmferry/core";

export interface ByteRange {
  readonly offset: number;
  readonly length: number;
}

/** As the kernel names its fields, for Koffi goes by them. */
interface Flock {
  l_type: number;
  l_whence: number;
  l_start: number;
  l_len: number;
  l_pid: number;
}

type Native = (...values: unknown[]) => Promise<number>;

/** Half of the thread pool, as Node makes it: some take minutes, and reads go on meanwhile. */
const CALLS_UNDER_WAY_MAX = 2;

const SEEK_DATA = 3;
const SEEK_HOLE = 4;

const FALLOC_KEEP_SIZE = 0x01;
const FALLOC_PUNCH_HOLE = 0x02;
const FALLOC_ZERO_RANGE = 0x10;

const BLKDISCARD = 0x1277;
const BLKZEROOUT = 0x127f;
const BLKGETSIZE64 = 0x8008_1272;

const F_OFD_GETLK = 36;
const F_OFD_SETLK = 37;
const LOCK_TYPES = { read: 0, write: 1, none: 2 };

let bindings: ReturnType<typeof bind> | undefined;
let underWay = 0;
/** As many as requests may be under way, which whoever takes them from outside limits. */
const waiting: (() => void)[] = [];

/** A host that cannot have these calls is told of it by this one, and not by a guest's request. */
export async function prepareSystemCalls(): Promise<void> {
  await load();
}

/** Where data begins at or after `offset`; null where none does before the end of the file. */
export function seekData(fd: number, offset: number): Promise<number | null> {
  return seek(fd, offset, SEEK_DATA);
}

/** Where a hole begins at or after `offset`, the end of the file being one; null beyond the end. */
export function seekHole(fd: number, offset: number): Promise<number | null> {
  return seek(fd, offset, SEEK_HOLE);
}

export async function punchHole(fd: number, { offset, length }: ByteRange): Promise<void> {
  const { fallocate } = await load();
  await fallocate(fd, FALLOC_PUNCH_HOLE | FALLOC_KEEP_SIZE, offset, length);
}

export async function zeroRange(fd: number, { offset, length }: ByteRange): Promise<void> {
  const { fallocate } = await load();
  await fallocate(fd, FALLOC_ZERO_RANGE | FALLOC_KEEP_SIZE, offset, length);
}

export async function deviceSizeBytes(fd: number): Promise<number> {
  const { ioctlOut } = await load();
  const size: [number | bigint] = [0];
  await ioctlOut(fd, BLKGETSIZE64, size);
  return Number(size[0]);
}

export async function discardOnDevice(fd: number, { offset, length }: ByteRange): Promise<void> {
  const { ioctlIn } = await load();
  await ioctlIn(fd, BLKDISCARD, [offset, length]);
}

export async function zeroOutOnDevice(fd: number, { offset, length }: ByteRange): Promise<void> {
  const { ioctlIn } = await load();
  await ioctlIn(fd, BLKZEROOUT, [offset, length]);
}

/** A lock that belongs to the open file and not to the process. It does not wait for others. */
export async function setOfdLock(
  fd: number,
  type: "read" | "write" | "none",
  { offset, length }: ByteRange,
): Promise<void> {
  const { fcntl } = await load();
  await fcntl(fd, F_OFD_SETLK, flock(LOCK_TYPES[type], { offset, length }));
}

/** Whether another open file, in this process or another, holds any lock in the range. */
export async function isLockedByOthers(fd: number, range: ByteRange): Promise<boolean> {
  const { fcntl } = await load();
  const lock = flock(LOCK_TYPES.write, range);
  await fcntl(fd, F_OFD_GETLK, lock);
  return lock.l_type !== LOCK_TYPES.none;
}

async function seek(fd: number, offset: number, whence: number): Promise<number | null> {
  const { lseek } = await load();
  try {
    return await lseek(fd, offset, whence);
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === "ENXIO") return null;
    throw error;
  }
}

function flock(type: number, { offset, length }: ByteRange): Flock {
  return { l_type: type, l_whence: 0, l_start: offset, l_len: length, l_pid: 0 };
}

function load(): ReturnType<typeof bind> {
  bindings ??= bind();
  return bindings;
}

/** What comes with the first call: whoever opens no image can do without the native module. */
async function bind(): Promise<
  Record<"lseek" | "fallocate" | "fcntl" | "ioctlIn" | "ioctlOut", Native>
> {
  assert(process.platform === "linux", "images are handled on Linux");
  assert(["x64", "arm64"].includes(process.arch), "the numbers are those of x64 and arm64");
  const { default: koffi } = await import("koffi");
  // Without a name: the process itself, which has its C library loaded, whichever it is.
  const library = koffi.load(null);
  const flockType = koffi.struct({
    l_type: "int16_t",
    l_whence: "int16_t",
    l_start: "int64_t",
    l_len: "int64_t",
    l_pid: "int32_t",
  });
  type Parameter = string | ReturnType<typeof koffi.pointer> | ReturnType<typeof koffi.inout>;
  const native = (name: string, result: "int" | "int64_t", parameters: Parameter[]): Native => {
    const bound = library.func(name, result, parameters);
    const errno = (): number => koffi.errno();
    return (...values) =>
      call(name, errno, (done) => {
        bound.async(...values, done);
      });
  };
  const longs = koffi.pointer("uint64_t");
  return {
    lseek: native("lseek", "int64_t", ["int", "int64_t", "int"]),
    fallocate: native("fallocate", "int", ["int", "int", "int64_t", "int64_t"]),
    fcntl: native("fcntl", "int", ["int", "int", koffi.inout(koffi.pointer(flockType))]),
    ioctlIn: native("ioctl", "int", ["int", "ulong", longs]),
    ioctlOut: native("ioctl", "int", ["int", "ulong", koffi.out(longs)]),
  };
}

async function call(
  name: string,
  errno: () => number,
  start: (done: (error: Error | null, result: number) => void) => void,
): Promise<number> {
  if (underWay < CALLS_UNDER_WAY_MAX) underWay++;
  else await new Promise<void>((resolve) => waiting.push(resolve));
  try {
    for (;;) {
      const outcome = await new Promise<{ result: number; errno: number }>((resolve, reject) => {
        start((error, result) => {
          // Koffi restores the errno of the call for the time of this callback.
          const failure = result === -1 ? errno() : 0;
          if (error === null) resolve({ result, errno: failure });
          else reject(error);
        });
      });
      if (outcome.result !== -1) return outcome.result;
      if (outcome.errno !== constants.errno.EINTR) throw failed(name, outcome.errno);
    }
  } finally {
    const next = waiting.shift();
    if (next === undefined) underWay--;
    else next();
  }
}

function failed(syscall: string, number: number): NodeJS.ErrnoException {
  const errno = -number;
  const code = getSystemErrorName(errno);
  const error = new Error(`${code}: ${getSystemErrorMessage(errno)}, ${syscall}`);
  return Object.assign(error, { code, errno, syscall });
}
