import { chmod, lstat, mkdir, unlink } from "node:fs/promises";
import { createConnection } from "node:net";
import { dirname, join, resolve } from "node:path";
import { UNIX_SOCKET_PATH_BYTES_MAX, unixSocketPathBytes } from "../qmp/unix-socket-path.ts";
import { GuestError } from "./guest-error.ts";

/** Where a running guest's QEMU keeps what it opens besides images. All absolute. */
export interface GuestPaths {
  readonly directory: string;
  readonly qmpSocket: string;
  /** FIFOs of the standby monitor, without `.in` and `.out`. */
  readonly standby: string;
  readonly serialLog: string;
  /** What QEMU writes to stdout and stderr. */
  readonly qemuLog: string;
}

export function guestPaths(directory: string): GuestPaths {
  const absolute = resolve(directory);
  return {
    directory: absolute,
    qmpSocket: join(absolute, "qmp.sock"),
    standby: join(absolute, "standby"),
    serialLog: join(absolute, "serial.log"),
    qemuLog: join(absolute, "qemu.log"),
  };
}

/** The paths of a guest that is known by its QMP socket. */
export function guestPathsOfQmpSocket(qmpSocket: string): GuestPaths {
  return { ...guestPaths(dirname(qmpSocket)), qmpSocket: resolve(qmpSocket) };
}

/** Throws `socket-path-too-long`. `setting` is what the operator has to shorten. */
export function checkSocketPath(path: string, setting = "VMFERRY_STATE_DIR"): void {
  const pathBytes = unixSocketPathBytes(path);
  if (pathBytes <= UNIX_SOCKET_PATH_BYTES_MAX) return;
  throw new GuestError(
    `the socket path ${path} has ${pathBytes} bytes and may have ${UNIX_SOCKET_PATH_BYTES_MAX}: ` +
      `set ${setting} to a shorter path`,
    {
      code: "socket-path-too-long",
      path,
      pathBytes,
      pathBytesMax: UNIX_SOCKET_PATH_BYTES_MAX,
      setting,
    },
  );
}

/**
 * Makes the directory of a guest that is about to start, for this user only, and removes the QMP
 * socket that an earlier QEMU left behind. Rejects with `socket-path-too-long`,
 * `guest-directory-unsafe`, or `guest-directory-in-use` where another QEMU still listens.
 */
export async function prepareGuestDirectory(paths: GuestPaths): Promise<void> {
  checkSocketPath(paths.qmpSocket);
  await mkdir(paths.directory, { recursive: true, mode: 0o700 });
  const stats = await lstat(paths.directory);
  if (!stats.isDirectory()) throw unsafe(paths.directory, "it is not a directory");
  if (stats.uid !== process.getuid?.()) throw unsafe(paths.directory, "it belongs to another user");
  await chmod(paths.directory, 0o700);
  // QEMU would unlink the socket of the other one, which from then on nobody could reach.
  const connection = await tryToConnect(paths.qmpSocket);
  if (connection === "ENOENT") return;
  if (connection === "ECONNREFUSED") return unlink(paths.qmpSocket);
  throw new GuestError(`another QEMU uses the guest directory ${paths.directory}`, {
    code: "guest-directory-in-use",
    directory: paths.directory,
  });
}

function tryToConnect(path: string): Promise<string> {
  return new Promise((resolve) => {
    const socket = createConnection({ path });
    socket.once("connect", () => {
      socket.destroy();
      resolve("connected");
    });
    socket.once("error", (error: NodeJS.ErrnoException) => {
      resolve(error.code ?? "unknown");
    });
  });
}

function unsafe(directory: string, reason: string): GuestError {
  return new GuestError(`the guest directory ${directory} cannot be used: ${reason}`, {
    code: "guest-directory-unsafe",
    directory,
    reason,
  });
}
