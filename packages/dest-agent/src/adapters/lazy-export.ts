/**
 * The export that a guest with a lazy disk is started on, and the way out of it: the disk's `raw`
 * node gets the image itself for a child, while the guest runs.
 *
 *   raw `disk0` ── `disk0-nbd` ── this export   ⇒   raw `disk0` ── `disk0-file`
 *
 * While no agent is there, QEMU holds the guest's requests and sends them again to whoever listens on
 * the same socket.
 */
import type { Logger } from "@vmferry/agent";
import { HeldExport, type BlockDevice, type HeldSockets, type ImageFile } from "@vmferry/block";
import { failpoint } from "@vmferry/core";
import {
  diskNodeNames,
  protocolNode,
  rawNode,
  type DiskBacking,
  type QmpClient,
} from "@vmferry/qemu";

const RECONNECT_SECONDS = 300;
/** A node that is swapped waits for the requests that are under way, and so for a slow disk. */
const PATIENT = { timeoutMs: 60_000 };

export interface LazyExportOptions {
  readonly diskId: string;
  /** The same after a restart; one of `sockets`, so that QEMU can connect while no agent is there. */
  readonly socketPath: string;
  readonly sockets: HeldSockets;
  readonly device: BlockDevice;
  readonly logger: Logger;
}

export interface WayOut {
  readonly qmp: QmpClient;
  readonly image: Pick<ImageFile, "kind" | "path">;
  /** QEMU is going to lock the image itself. */
  readonly unlock: () => Promise<void>;
}

export class LazyExport {
  readonly #diskId: string;
  readonly #export: HeldExport;

  private constructor(diskId: string, exported: HeldExport) {
    this.#diskId = diskId;
    this.#export = exported;
  }

  static async open({
    diskId,
    socketPath,
    sockets,
    device,
    logger,
  }: LazyExportOptions): Promise<LazyExport> {
    const exported = await HeldExport.open({
      sockets,
      socketPath,
      exportName: diskId,
      device,
      onFault: (error) => {
        logger.warn({ disk: diskId, err: error }, "a request for the disk went wrong");
      },
    });
    return new LazyExport(diskId, exported);
  }

  /** What the guest's QEMU is started with. */
  static backing({
    diskId,
    socketPath,
  }: Pick<LazyExportOptions, "diskId" | "socketPath">): DiskBacking {
    return {
      kind: "nbd",
      socketPath,
      exportName: diskId,
      reconnectDelaySeconds: RECONNECT_SECONDS,
    };
  }

  /**
   * The image is whole: QEMU goes on with it alone. Does what is left to do, so that it can be called
   * again after a failure or a restart; while it fails, the export stays.
   */
  async leave({ qmp, image, unlock }: WayOut): Promise<void> {
    const names = diskNodeNames(this.#diskId);
    const nodes = await qmp.execute("query-named-block-nodes", { flat: true });
    const find = (name: string): (typeof nodes)[number] | undefined =>
      nodes.find(({ nodeName }) => nodeName === name);
    const exported = find(names.nbd);
    failpoint("lazy.leave.before");
    if (exported !== undefined) {
      if (find(names.raw)?.filename === exported.filename) {
        await unlock();
        if (find(names.file) === undefined) {
          const { kind, path } = image;
          await qmp.execute("blockdev-add", protocolNode(this.#diskId, { kind, path }), PATIENT);
        }
        await qmp.execute("blockdev-reopen", { options: [rawNode(this.#diskId, "file")] }, PATIENT);
      }
      // While the export is there: QEMU flushes a node before it lets go of it.
      await qmp.execute("blockdev-del", { "node-name": names.nbd }, PATIENT);
    }
    failpoint("lazy.leave.after");
    await this.close();
  }

  /** Resolves when the export outlives this process, or cannot. */
  get held(): Promise<void> {
    return this.#export.held;
  }

  /** Resolves when the device has settled every request. */
  close(): Promise<void> {
    return this.#export.close();
  }
}
