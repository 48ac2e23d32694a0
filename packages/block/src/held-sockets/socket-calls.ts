/**
 * Unix sockets as Node cannot make them: a listener that is only a descriptor, and messages that
 * carry one (SCM_RIGHTS). For Linux on x64 and arm64, with glibc and musl. Nothing here waits, so
 * all of it is called at once; whoever has to wait uses `poll`, or `whenReadable` in an event loop.
 * Errors have `code`, `errno` and `syscall` as those of node:net have. Descriptors are closed with
 * `closeSync` of node:fs, and no child inherits one.
 */
import { chmodSync, closeSync } from "node:fs";
import { constants } from "node:os";
import { getSystemErrorMessage, getSystemErrorName } from "node:util";
import koffi from "koffi";

export interface Message {
  readonly text: string;
  readonly descriptor: number | null;
}

const AF_UNIX = 1;
const SOCK_STREAM = 1;
/** Messages keep their bounds, and the end of the peer shows as an empty one. */
const SOCK_SEQPACKET = 5;
const SOCK_NONBLOCK = 0o4000;
const SOCK_CLOEXEC = 0o2000000;
const SOL_SOCKET = 1;
const SO_PEERCRED = 17;
const SCM_RIGHTS = 1;
const MSG_DONTWAIT = 0x40;
const MSG_NOSIGNAL = 0x4000;
const MSG_CMSG_CLOEXEC = 0x4000_0000;
const POLLIN = 1;

/** Listeners of Node have as many. */
const BACKLOG = 511;
/** With the zero that ends it. */
const PATH_BYTES_MAX = 108;
const TEXT_BYTES_MAX = 128;

/* One block of memory for all of sendmsg and recvmsg: msghdr, iovec, control data, text. */
const HEADER_BYTES = 56;
const VECTOR_AT = HEADER_BYTES;
const CONTROL_AT = VECTOR_AT + 16;
/** struct cmsghdr and one descriptor; the kernel closes more of them. */
const CONTROL_BYTES = 20;
const TEXT_AT = CONTROL_AT + 24;

const library = koffi.load(null);
const native = {
  socket: library.func("socket", "int", ["int", "int", "int"]),
  bind: library.func("bind", "int", ["int", "void *", "uint"]),
  listen: library.func("listen", "int", ["int", "int"]),
  connect: library.func("connect", "int", ["int", "void *", "uint"]),
  accept4: library.func("accept4", "int", ["int", "void *", "void *", "int"]),
  getsockopt: library.func("getsockopt", "int", ["int", "int", "int", "void *", "void *"]),
  poll: library.func("poll", "int", ["void *", "ulong", "int"]),
  sendmsg: library.func("sendmsg", "int64_t", ["int", "void *", "int"]),
  recvmsg: library.func("recvmsg", "int64_t", ["int", "void *", "int"]),
};
const block = koffi.alloc("uint8_t", TEXT_AT + TEXT_BYTES_MAX) as unknown;
const blockBytes = Buffer.from(koffi.view(block, TEXT_AT + TEXT_BYTES_MAX));
const blockAddress = koffi.address(block);

/** What listens at the path is only for this user. Nothing may be at the path. */
export function listenOn(path: string, kind: "stream" | "messages"): number {
  return madeSocket(kind, (fd) => {
    checked("bind", native.bind(fd, addressOf(path), PATH_BYTES_MAX + 2) as number);
    // Before anybody can connect.
    chmodSync(path, 0o600);
    checked("listen", native.listen(fd, BACKLOG) as number);
  });
}

/** For messages. */
export function connectTo(path: string): number {
  return madeSocket("messages", (fd) => {
    checked("connect", native.connect(fd, addressOf(path), PATH_BYTES_MAX + 2) as number);
  });
}

export function acceptFrom(listener: number): number {
  return checked("accept4", native.accept4(listener, null, null, SOCK_CLOEXEC) as number);
}

/** The process that has connected to this one, or that listens where this one has connected to. */
export function peerOf(fd: number): { readonly pid: number; readonly uid: number } {
  const credentials = Buffer.alloc(12);
  const length = Buffer.alloc(4);
  length.writeUInt32LE(credentials.length);
  const outcome = native.getsockopt(fd, SOL_SOCKET, SO_PEERCRED, credentials, length) as number;
  checked("getsockopt", outcome);
  return { pid: credentials.readInt32LE(0), uid: credentials.readUInt32LE(4) };
}

/** Which of them have something to read, or have ended. A negative time is for ever. */
export function poll(fds: readonly number[], timeoutMs: number): number[] {
  const entries = Buffer.alloc(fds.length * 8);
  fds.forEach((fd, index) => {
    entries.writeInt32LE(fd, index * 8);
    entries.writeInt16LE(POLLIN, index * 8 + 4);
  });
  for (;;) {
    const found = native.poll(entries, fds.length, Math.ceil(timeoutMs)) as number;
    if (found === -1 && koffi.errno() === constants.errno.EINTR) continue;
    checked("poll", found);
    return fds.filter((_, index) => entries.readInt16LE(index * 8 + 6) !== 0);
  }
}

/** Resolves with false when nothing has come in time. */
export function whenReadable(fd: number, timeoutMs: number): Promise<boolean> {
  return new Promise((resolve) => {
    const end = (readable: boolean): void => {
      clearTimeout(timer);
      handle.close();
      resolve(readable);
    };
    const timer = setTimeout(() => {
      // A process that was held up sees its timers before its sockets.
      end(poll([fd], 0).length > 0);
    }, timeoutMs);
    const handle = koffi.node.poll(fd, { readable: true, disconnect: true }, () => {
      end(true);
    });
  });
}

export function sendMessage(fd: number, { text, descriptor }: Message): void {
  const bytes = Buffer.from(text);
  if (bytes.length > TEXT_BYTES_MAX) throw new Error(`a message of ${bytes.length} bytes`);
  prepareBlock(bytes.length, descriptor === null ? 0 : CONTROL_BYTES);
  bytes.copy(blockBytes, TEXT_AT);
  if (descriptor !== null) {
    blockBytes.writeBigUInt64LE(BigInt(CONTROL_BYTES), CONTROL_AT);
    blockBytes.writeInt32LE(SOL_SOCKET, CONTROL_AT + 8);
    blockBytes.writeInt32LE(SCM_RIGHTS, CONTROL_AT + 12);
    blockBytes.writeInt32LE(descriptor, CONTROL_AT + 16);
  }
  checked("sendmsg", native.sendmsg(fd, block, MSG_DONTWAIT | MSG_NOSIGNAL) as number);
}

/** Null when the peer has ended. What is longer than a message may be is cut off. */
export function receiveMessage(fd: number): Message | null {
  prepareBlock(TEXT_BYTES_MAX, CONTROL_BYTES);
  const flags = MSG_DONTWAIT | MSG_CMSG_CLOEXEC;
  const length = checked("recvmsg", native.recvmsg(fd, block, flags) as number);
  const text = blockBytes.toString("latin1", TEXT_AT, TEXT_AT + length);
  const hasDescriptor =
    blockBytes.readBigUInt64LE(40) >= BigInt(CONTROL_BYTES) &&
    blockBytes.readInt32LE(CONTROL_AT + 8) === SOL_SOCKET &&
    blockBytes.readInt32LE(CONTROL_AT + 12) === SCM_RIGHTS;
  const descriptor = hasDescriptor ? blockBytes.readInt32LE(CONTROL_AT + 16) : null;
  if (length > 0) return { text, descriptor };
  if (descriptor !== null) closeSync(descriptor);
  return null;
}

/** struct msghdr: name, its length, iovec, their number, control data, its length, flags. */
function prepareBlock(textBytes: number, controlBytes: number): void {
  blockBytes.fill(0);
  blockBytes.writeBigUInt64LE(blockAddress + BigInt(VECTOR_AT), 16);
  blockBytes.writeBigUInt64LE(1n, 24);
  if (controlBytes > 0) blockBytes.writeBigUInt64LE(blockAddress + BigInt(CONTROL_AT), 32);
  blockBytes.writeBigUInt64LE(BigInt(controlBytes), 40);
  blockBytes.writeBigUInt64LE(blockAddress + BigInt(TEXT_AT), VECTOR_AT);
  blockBytes.writeBigUInt64LE(BigInt(textBytes), VECTOR_AT + 8);
}

function madeSocket(kind: "stream" | "messages", prepare: (fd: number) => void): number {
  const type = (kind === "stream" ? SOCK_STREAM : SOCK_SEQPACKET) | SOCK_CLOEXEC | SOCK_NONBLOCK;
  const fd = checked("socket", native.socket(AF_UNIX, type, 0) as number);
  try {
    prepare(fd);
    return fd;
  } catch (error) {
    closeSync(fd);
    throw error;
  }
}

/** struct sockaddr_un. */
function addressOf(path: string): Buffer {
  const bytes = Buffer.from(path);
  if (bytes.length >= PATH_BYTES_MAX || bytes.includes(0)) {
    throw new Error(`the path of a socket is shorter than ${PATH_BYTES_MAX} bytes: ${path}`);
  }
  const address = Buffer.alloc(PATH_BYTES_MAX + 2);
  address.writeUInt16LE(AF_UNIX);
  bytes.copy(address, 2);
  return address;
}

function checked(syscall: string, outcome: number): number {
  if (outcome !== -1) return outcome;
  const errno = -koffi.errno();
  const code = getSystemErrorName(errno);
  const error = new Error(`${code}: ${getSystemErrorMessage(errno)}, ${syscall}`);
  throw Object.assign(error, { code, errno, syscall });
}
