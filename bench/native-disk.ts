// A guest with a disk by QEMU's own means: the disk is mirrored to the destination's QEMU over NBD,
// in the mode in which the guest's writes go to both sides before they complete; once the mirror is
// in step, the guest follows. The order is the one that others use as well:
//
//   source                                          dest
//                                                   nbd-server-start, block-export-add (before)
//   blockdev-add nbd, blockdev-mirror, READY
//   migrate, and at pre-switchover:
//   block-job-cancel, which ends a mirror in step
//   blockdev-del, migrate-continue                  nbd-server-stop, cont
//
// Without the stop at pre-switchover the mirror would write to a disk that QEMU has given up. The
// export has to go before the guest runs: as long as it may write, the guest may not.

import { mkdir } from "node:fs/promises";
import { dirname, join } from "node:path";
import { AgentError } from "@vmferry/core";
import { writeDiskImage } from "@vmferry/testkit";
import type { BenchDisk } from "./cases.ts";
import { MIB } from "./move.ts";
import {
  isFinalStatus,
  migrationUri,
  statusOf,
  type NativeMigration,
  type NativePair,
} from "./native-migration.ts";
import type { RawQmp, RawQmpEvent } from "./raw-qmp.ts";

export const DISK_ID = "disk0";

const NBD_PORT = "10809";
const JOB = "mirror0";
const TARGET = "mirror-target";
const JOB_ENDS = ["BLOCK_JOB_COMPLETED", "BLOCK_JOB_CANCELLED"];

class MirrorError extends AgentError<{ readonly code: "mirror-failed" }> {}

export interface DiskImages {
  readonly source: string;
  readonly dest: string;
}

/** The dest's is a hole of the same size, in a directory of its own. */
export async function makeDiskImages(directory: string, disk: BenchDisk): Promise<DiskImages> {
  const images = {
    source: join(directory, "images", "demo.raw"),
    dest: join(directory, "images-d", "demo.raw"),
  };
  for (const path of [images.source, images.dest]) await mkdir(dirname(path));
  await writeDiskImage(images.source, disk.sizeMib * MIB, { fill: disk.fill });
  await writeDiskImage(images.dest, disk.sizeMib * MIB);
  return images;
}

/** Of a guest with a disk. Resolves when the dest waits for both. */
export async function prepareMirroredMigration(pair: NativePair): Promise<NativeMigration> {
  const { source, dest } = pair;
  await setCapability(source, "pause-before-switchover");
  // The dest takes its disk when it is told to run, and not before the export has gone.
  await setCapability(dest, "late-block-activate");
  await dest.execute("migrate-incoming", { uri: migrationUri(pair) });
  const { server } = nbdNode(pair);
  await dest.execute("nbd-server-start", {
    addr: { type: server.type, data: { host: server.host, port: server.port } },
  });
  const exported = { "node-name": DISK_ID, name: DISK_ID, writable: true };
  await dest.execute("block-export-add", { type: "nbd", id: "export0", ...exported });
  let finished: Promise<RawQmpEvent> | null = null;
  return {
    begin: async () => {
      const inStep = source.waitFor(isJobEvent("BLOCK_JOB_READY", ...JOB_ENDS));
      await beginMirror(pair);
      finished = finish(pair, inStep);
      finished.catch(() => undefined); // whoever asks how it ended sees it
    },
    ended: () => finished ?? Promise.reject(failed("it was never begun")),
    cancel: async () => {
      // One of them, or both, may not be there any more, or not yet.
      await source.execute("migrate_cancel").catch(() => undefined);
      await source.execute("block-job-cancel", { device: JOB, force: true }).catch(() => undefined);
    },
  };
}

/** With the options that make QEMU's mirror good at holes: they are not sent as zeroes. */
async function beginMirror(pair: NativePair): Promise<void> {
  await pair.source.execute("blockdev-add", nbdNode(pair));
  await pair.source.execute("blockdev-mirror", {
    "job-id": JOB,
    device: DISK_ID,
    target: TARGET,
    sync: "full",
    "copy-mode": "write-blocking",
  });
}

async function finish(pair: NativePair, inStep: Promise<RawQmpEvent>): Promise<RawQmpEvent> {
  const { source, dest } = pair;
  const first = await inStep;
  if (first.event !== "BLOCK_JOB_READY") throw failed(first.data?.["error"]);
  const final = source.waitFor(isFinalStatus);
  const paused = source.waitFor(
    (event) => statusOf(event) === "pre-switchover" || isFinalStatus(event),
  );
  await source.execute("migrate", { uri: migrationUri(pair) });
  if (isFinalStatus(await paused)) return final;
  const jobEnd = source.waitFor(isJobEvent(...JOB_ENDS));
  await source.execute("block-job-cancel", { device: JOB });
  const { event, data } = await jobEnd;
  if (event !== "BLOCK_JOB_COMPLETED" || data?.["error"] !== undefined)
    throw failed(data?.["error"]);
  await source.execute("blockdev-del", { "node-name": TARGET });
  await source.execute("migrate-continue", { state: "pre-switchover" });
  await dest.execute("nbd-server-stop");
  await dest.execute("cont");
  return final;
}

function nbdNode({ destAddress }: NativePair) {
  return {
    driver: "nbd",
    "node-name": TARGET,
    discard: "unmap",
    server: { type: "inet", host: destAddress, port: NBD_PORT },
    export: DISK_ID,
  } as const;
}

function isJobEvent(...names: readonly string[]): (event: RawQmpEvent) => boolean {
  return ({ event, data }) => names.includes(event) && data?.["device"] === JOB;
}

function failed(reason: unknown): MirrorError {
  const why = typeof reason === "string" ? reason : "it was cancelled";
  return new MirrorError(`QEMU's mirror has ended: ${why}`, { code: "mirror-failed" });
}

function setCapability(qmp: RawQmp, capability: string): Promise<unknown> {
  return qmp.execute("migrate-set-capabilities", { capabilities: [{ capability, state: true }] });
}
