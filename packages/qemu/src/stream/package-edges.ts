import { COMMAND } from "./stream-command.ts";
import { RECORD } from "./stream-format.ts";
import { StreamError } from "./stream-error.ts";

/*
 * What a package has to begin and to end with. Between them stand device sections, whose length
 * nobody knows but the device that loads them:
 *
 *   POSTCOPY_LISTEN  *FULL  *PING  POSTCOPY_RUN
 *
 * Without the first a dest would load devices whose memory it cannot ask for; without the last it
 * would never be told that it has all of them.
 */
const EDGES = {
  begin: bareCommand(COMMAND.POSTCOPY_LISTEN),
  end: bareCommand(COMMAND.POSTCOPY_RUN),
};

export const PACKAGE_EDGE_BYTES = EDGES.begin.length;

/** Refuses a package that cannot hold both. */
export function checkPackageBytes(bytes: number): void {
  if (bytes < 2 * PACKAGE_EDGE_BYTES) throw badPackage(`it has ${bytes} bytes`);
}

export function checkPackageEdge(edge: keyof typeof EDGES, found: Buffer): void {
  if (found.equals(EDGES[edge])) return;
  throw badPackage(`it does not ${edge} with ${edge === "begin" ? "LISTEN" : "RUN"}`);
}

function badPackage(reason: string): StreamError {
  return new StreamError(`the package of device state: ${reason}`, {
    code: "stream-bad-package",
    reason,
  });
}

function bareCommand(command: number): Buffer {
  return Buffer.of(RECORD.COMMAND, command >>> 8, command & 0xff, 0, 0);
}
