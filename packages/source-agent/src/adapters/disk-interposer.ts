/**
 * Puts an export of this agent between a guest and one of its disks, and takes it away again, while
 * the guest runs: the disk's `raw` node gets another child by `blockdev-reopen`. The guest notices a
 * few milliseconds.
 *
 *   raw `disk0` ── `disk0-file`   ⇄   raw `disk0` ── `disk0-nbd` ── this export
 *
 * While the export is away, QEMU holds the guest's requests for `RECONNECT_SECONDS` and sends them
 * again to whoever accepts on the same socket. After that they fail, which stops the guest.
 */
import { HeldExport, type BlockDevice, type HeldSockets } from "@vmferry/block";
import type { Logger } from "@vmferry/agent";
import { codeOf, failpoint, messageOf } from "@vmferry/core";
import { diskNodeNames, protocolNode, rawNode, type QmpClient } from "@vmferry/qemu";
import { LOST_FLUSH } from "../session/doubt-text.ts";
import { SessionError } from "../session/session-error.ts";
import type { DiskEntry } from "./disk-entry.ts";
import { endExportNote, readExportNote, removeExportNote, writeExportNote } from "./export-note.ts";

const RECONNECT_SECONDS = 300;
/** `blockdev-reopen` waits for the requests that are under way, and so for a slow disk. */
const SWAP_MS_MAX = 30_000;

export interface DiskInterposerOptions {
  readonly qmp: QmpClient;
  readonly diskId: string;
  /** One of `sockets`, so that QEMU can connect while no agent is there. */
  readonly socketPath: string;
  readonly sockets: HeldSockets;
  /** By which the next agent finds the export again. */
  readonly notePath: string;
  readonly logger: Logger;
}

export class DiskInterposer implements DiskEntry {
  /** It stands over the image itself. */
  readonly filled = true;
  readonly #options: DiskInterposerOptions;
  #export: HeldExport | null = null;
  #swapped = false;
  #isSuspect = false;
  #lastNote: Promise<unknown> = Promise.resolve();

  constructor(options: DiskInterposerOptions) {
    this.#options = options;
  }

  async enter(device: BlockDevice): Promise<void> {
    const { qmp, diskId, socketPath, sockets, notePath, logger } = this.#options;
    const node = protocolNode(diskId, {
      kind: "nbd",
      socketPath,
      exportName: diskId,
      reconnectDelaySeconds: RECONNECT_SECONDS,
    });
    try {
      const noted = await readExportNote(notePath);
      if (noted?.isSuspect === true) throw new Error(LOST_FLUSH);
      if (noted !== null) throw new Error("it is behind an export of an earlier migration still");
      await writeExportNote(notePath, socketPath);
      this.#export = await HeldExport.open({
        sockets,
        socketPath,
        exportName: diskId,
        device,
        onFault: (error) => {
          logger.warn({ disk: diskId, err: error }, "a request for the disk went wrong");
        },
      }).catch(async (error: unknown) => {
        await removeExportNote(notePath);
        throw error;
      });
      await this.#export.held;
      failpoint("disk.enter.before");
      await qmp.execute("blockdev-add", node);
      await this.#swap("nbd");
      failpoint("disk.enter.after");
    } catch (error) {
      const reason = `disk ${diskId} could not be put behind the agent: ${messageOf(error)}`;
      await this.leave().catch(() => undefined);
      throw new SessionError(reason, { code: "disk-not-interposed" }, { cause: error });
    }
  }

  /** The guest is told next: an agent that dies from here on must not let a later flush succeed. */
  async suspected(): Promise<void> {
    if (this.#export === null) return;
    const { socketPath, notePath } = this.#options;
    this.#isSuspect = true;
    // Of several flushes that fail at once.
    const note = this.#lastNote.then(() => writeExportNote(notePath, socketPath, true));
    this.#lastNote = note.catch(() => undefined);
    await note;
  }

  settle(): Promise<void> {
    // QEMU has drained its disks before it said that the guest stands still.
    return Promise.resolve();
  }

  /**
   * The guest's requests go to its image again. While that fails the export stays, for the guest
   * needs one or the other.
   */
  async leave(): Promise<void> {
    const { qmp, diskId } = this.#options;
    if (this.#export === null) return;
    failpoint("disk.leave.before");
    if (this.#swapped) await this.#swap("file");
    failpoint("disk.leave.after");
    await qmp
      .execute("blockdev-del", { "node-name": diskNodeNames(diskId).nbd })
      .catch((error: unknown) => {
        // Absent where it could not be added. QEMU that is still at it needs the export.
        if (codeOf(error) === "qmp-timeout") throw error;
      });
    await this.#closeExport();
    await endExportNote(this.#options.notePath, this.#isSuspect);
  }

  async close(): Promise<void> {
    await this.#closeExport();
    await removeExportNote(this.#options.notePath);
  }

  async #closeExport(): Promise<void> {
    await this.#export?.close();
    this.#export = null;
    await this.#lastNote;
  }

  async #swap(to: "nbd" | "file"): Promise<void> {
    const { qmp, diskId } = this.#options;
    // Whatever becomes of the command: QEMU may have carried it out.
    if (to === "nbd") this.#swapped = true;
    await qmp.execute(
      "blockdev-reopen",
      { options: [rawNode(diskId, to)] },
      { timeoutMs: SWAP_MS_MAX },
    );
    this.#swapped = to === "nbd";
  }
}
