/**
 * After the death of an agent that stood between a guest and its disks: QEMU holds the guest's
 * requests and waits for an export on the same socket. It gets one, straight over the image, sends
 * its requests again, and then the disk is given back.
 *
 * The export comes first, by what is written down beside the guest: a QEMU that flushes the disk
 * inside a command answers nothing, not even who it is, until somebody has answered the flush.
 */
import { setTimeout as sleep } from "node:timers/promises";
import {
  ReopenedImage,
  type DiskRecoveryPort,
  type EarlierDisks,
  type GivenBack,
} from "@vmferry/agent";
import { HeldExport, type HeldSockets } from "@vmferry/block";
import { codeOf, Deferred, messageOf, systemClock } from "@vmferry/core";
import type { GuestDisk } from "@vmferry/protocol";
import {
  diskNodeNames,
  rawNode,
  resolveImage,
  type BlockNode,
  type QmpClient,
} from "@vmferry/qemu";
import { mirrorJobId } from "./disk-mirror-job.ts";
import { LOST_FLUSH } from "../session/doubt-text.ts";
import {
  endExportNote,
  exportNotePath,
  readExportNote,
  removeExportNote,
  writeExportNote,
} from "./export-note.ts";
import { SourceQemu } from "./source-qemu.ts";

/**
 * While the guest has requests under way QEMU waits in the backlog of its export, or, where no holder
 * had the socket, looks for it again after 1, 2, 4, 8 and then every 16 seconds. Where it has none,
 * the swap itself makes QEMU look. A guest that stands still has none: QEMU drains its disks when it
 * stops the vCPUs.
 */
const ATTACH_MS_MAX = 17_000;
/** What the dead agent had under way has ended by then. */
const LOCK_MS_MAX = 30_000;
/** While QEMU waits for its export inside a command, it answers nothing else. */
const PATIENT = { timeoutMs: 60_000 };

const JOB_ENDS_AGAIN_MS = 100;
const JOB_ENDS_ATTEMPTS_MAX = 50;

interface Reopened {
  readonly image: ReopenedImage;
  readonly server: HeldExport;
  readonly attached: Promise<void>;
}

export class DiskRecovery implements DiskRecoveryPort {
  /** By the paths of their notes. */
  readonly #reopened = new Map<string, Reopened>();
  readonly #sockets: HeldSockets;

  constructor(sockets: HeldSockets) {
    this.#sockets = sockets;
  }

  async reopen(guest: EarlierDisks): Promise<void> {
    await Promise.all(
      guest.disks.map(async (disk) => {
        const note = exportNotePath(guest.directory, disk.id);
        try {
          const noted = await readExportNote(note);
          if (noted === null || noted.socketPath === null) return;
          const { socketPath, isSuspect } = noted;
          guest.logger.warn({ disk: disk.id, ...noted }, "the disk lost its agent; serving it");
          await this.#open(guest, disk, { socketPath, isSuspect });
        } catch (error) {
          guest.logger.error({ disk: disk.id, err: error }, "a disk's export is not there again");
        }
      }),
    );
  }

  async giveBack(guest: EarlierDisks & { readonly qmp: QmpClient }): Promise<GivenBack> {
    const nodes = await guest.qmp.execute("query-named-block-nodes", { flat: true });
    const given = await Promise.all(guest.disks.map((disk) => this.#giveBack(guest, disk, nodes)));
    if (given.includes("suspect")) return "suspect";
    return given.includes("given") ? "given" : "nothing";
  }

  async forget({ directory, disks }: EarlierDisks): Promise<void> {
    for (const { id } of disks) {
      const note = exportNotePath(directory, id);
      await this.#close(note);
      await removeExportNote(note);
    }
  }

  async #giveBack(
    guest: EarlierDisks & { readonly qmp: QmpClient },
    disk: GuestDisk,
    nodes: readonly BlockNode[],
  ): Promise<GivenBack> {
    const { qmp, logger, directory, mirrored } = guest;
    const { id, format } = disk;
    const names = diskNodeNames(id);
    const note = exportNotePath(directory, id);
    const exported = nodes.find(({ nodeName }) => nodeName === names.nbd);
    // One that cannot be read may say that a flush has failed.
    const wasSuspect = (await readExportNote(note))?.isSuspect === true;
    if (exported === undefined) {
      const isSuspect = await this.#end(note, wasSuspect);
      // It was stopped before QEMU let go of the export; a person may have started it since.
      if (isSuspect) logger.error({ disk: id }, LOST_FLUSH);
      return isSuspect ? "suspect" : "nothing";
    }
    if (mirrored || format !== "raw") {
      await endMirror(qmp, id);
      return "nothing";
    }
    const above = nodes.find(({ nodeName }) => nodeName === names.raw);
    const isUsed = above?.filename === exported.filename;
    logger.warn({ disk: id, isUsed }, "giving the disk back");
    const found = { socketPath: socketPathOf(exported.filename), isSuspect: wasSuspect };
    const { image, attached } = this.#reopened.get(note) ?? (await this.#open(guest, disk, found));
    const isStopped = image.isSuspect;
    if (isStopped) await this.#stop(guest, disk, image);
    if (isUsed) {
      await withinLockTime(image.locked);
      const { running } = await qmp.execute("query-status");
      if (running) await Promise.race([attached, sleep(ATTACH_MS_MAX)]);
      await image.unlock();
      await qmp.execute("blockdev-reopen", { options: [rawNode(id, "file")] }, PATIENT);
    }
    // While the export is there: QEMU flushes a node before it lets go of it, and would hold
    // everything until somebody answers.
    await qmp.execute("blockdev-del", { "node-name": names.nbd }, PATIENT);
    // The flush of that may have been the first to fail.
    if (image.isSuspect && !isStopped) await this.#stop(guest, disk, image);
    return (await this.#end(note, wasSuspect)) ? "suspect" : "given";
  }

  /** As an agent that lives does: the guest, whose flush has failed, stays stopped. */
  async #stop(
    { qmp, logger }: Pick<EarlierDisks, "logger"> & { readonly qmp: QmpClient },
    { id }: GuestDisk,
    image: ReopenedImage,
  ): Promise<void> {
    await new SourceQemu(qmp, systemClock).keepStopped();
    image.giveUpFlushes();
    logger.error({ disk: id }, LOST_FLUSH);
  }

  async #open(
    { directory, imageDir, logger }: EarlierDisks,
    { id, image: name }: GuestDisk,
    { socketPath, isSuspect }: { readonly socketPath: string; readonly isSuspect: boolean },
  ): Promise<Reopened> {
    const { path } = await resolveImage({ imageDirectory: imageDir, name });
    const note = exportNotePath(directory, id);
    const image = await ReopenedImage.open(path, logger.child({ disk: id }), {
      isSuspect,
      onSuspect: () => writeExportNote(note, socketPath, true),
    });
    const attached = new Deferred();
    try {
      const server = await HeldExport.open({
        sockets: this.#sockets,
        socketPath,
        exportName: id,
        device: image,
        onAttached: () => {
          attached.resolve();
        },
        onFault: (error) => {
          logger.warn({ disk: id, reason: messageOf(error) }, "a request for the disk went wrong");
        },
      });
      const reopened = { image, server, attached: attached.promise };
      this.#reopened.set(note, reopened);
      return reopened;
    } catch (error) {
      await image.close();
      throw error;
    }
  }

  /** QEMU has let go of the export. Whether the image is suspect, which the note goes on to say. */
  async #end(note: string, wasSuspect: boolean): Promise<boolean> {
    const image = await this.#close(note);
    const isSuspect = wasSuspect || image?.isSuspect === true;
    await endExportNote(note, isSuspect);
    return isSuspect;
  }

  async #close(note: string): Promise<ReopenedImage | null> {
    const reopened = this.#reopened.get(note);
    this.#reopened.delete(note);
    // First: a write that waits for the lock ends with it, and the server waits for its requests.
    await reopened?.image.close();
    if (reopened !== undefined) await reopened.server.close();
    else await this.#giveUp(note);
    return reopened?.image ?? null;
  }

  /** A socket of the dead agent on which nobody ever accepts again. */
  async #giveUp(note: string): Promise<void> {
    // One that cannot be read is removed all the same.
    const noted = await readExportNote(note).catch(() => null);
    const socketPath = noted?.socketPath ?? null;
    if (socketPath !== null) await this.#sockets.giveUp(socketPath);
  }
}

/**
 * Takes away the target of a mirror that has failed with its agent, or will with the guest's next
 * write. The guest has its disk all the while.
 */
async function endMirror(qmp: QmpClient, diskId: string): Promise<void> {
  const isRefusal = (error: unknown): boolean => codeOf(error) === "qmp-command-failed";
  const job = { device: mirrorJobId(diskId), force: true };
  await qmp.execute("block-job-cancel", job, PATIENT).catch((error: unknown) => {
    // It has ended by itself.
    if (!isRefusal(error)) throw error;
  });
  const target = { "node-name": diskNodeNames(diskId).nbd };
  for (let attempt = 1; ; attempt++) {
    try {
      await qmp.execute("blockdev-del", target, PATIENT);
      return;
    } catch (error) {
      // The job lets go of it a moment after it was told to end.
      if (!isRefusal(error) || attempt === JOB_ENDS_ATTEMPTS_MAX) throw error;
      await sleep(JOB_ENDS_AGAIN_MS);
    }
  }
}

async function withinLockTime(locked: Promise<void>): Promise<void> {
  const late = new AbortController();
  const expired = sleep(LOCK_MS_MAX, "late", { signal: late.signal }).catch(() => "over");
  const outcome = await Promise.race([locked.then(() => "locked"), expired]);
  late.abort();
  if (outcome === "late") throw new Error("somebody else has the image of the disk open");
}

/** From `nbd+unix:///disk0?socket=/run/…`, as QEMU writes it. */
function socketPathOf(filename: string): string {
  const path = new URL(filename).searchParams.get("socket");
  if (path === null) throw new Error(`QEMU names no socket for its export: ${filename}`);
  return path;
}
