/**
 * For a disk whose graph the agent cannot step into, such as qcow2: QEMU's own mirror writes all of
 * it into an export of the agent, and every later write of the guest both to its image and there.
 *
 *   qcow2 `disk0` ── `disk0-file`
 *        └── job `disk0-mirror` ──▶ `disk0-nbd` ── this export
 *
 * A mirror that ends by itself has failed; the guest does not notice.
 */
import { NbdServer, type BlockDevice } from "@vmferry/block";
import type { Logger } from "@vmferry/agent";
import { Deferred, messageOf } from "@vmferry/core";
import { blockJobStateOf, diskNodeNames, protocolNode, type QmpClient } from "@vmferry/qemu";
import { SessionError } from "../session/session-error.ts";
import type { DiskEntry } from "./disk-entry.ts";

const STOP_MS_MAX = 30_000;

export interface DiskMirrorJobOptions {
  readonly qmp: QmpClient;
  readonly diskId: string;
  readonly socketPath: string;
  readonly logger: Logger;
  readonly onFailed: (error: unknown) => void;
}

export class DiskMirrorJob implements DiskEntry {
  readonly #options: DiskMirrorJobOptions;
  readonly #ended = new Deferred<string | null>();
  #server: NbdServer | null = null;
  #ready = false;
  #running = false;
  #ignoreEvents: () => void = () => undefined;

  constructor(options: DiskMirrorJobOptions) {
    this.#options = options;
  }

  get filled(): boolean {
    return this.#ready;
  }

  async enter(device: BlockDevice): Promise<void> {
    const { qmp, diskId, socketPath, logger } = this.#options;
    const names = diskNodeNames(diskId);
    const node = protocolNode(diskId, {
      kind: "nbd",
      socketPath,
      exportName: diskId,
      // The mirror is to fail with its agent; the guest does not depend on it.
      reconnectDelaySeconds: 0,
    });
    try {
      this.#server = await NbdServer.open({
        socketPath,
        exportName: diskId,
        device,
        onFault: (error) => {
          logger.warn({ disk: diskId, err: error }, "a request for the disk went wrong");
        },
      });
      this.#follow();
      await qmp.execute("blockdev-add", node);
      await qmp.execute("blockdev-mirror", {
        "job-id": this.#jobId,
        device: names.raw,
        target: names.nbd,
        sync: "full",
        "copy-mode": "write-blocking",
      });
      this.#running = true;
    } catch (error) {
      const reason = `disk ${diskId} could not be mirrored into the agent: ${messageOf(error)}`;
      await this.leave().catch(() => undefined);
      throw new SessionError(reason, { code: "disk-not-interposed" }, { cause: error });
    }
  }

  suspected(): Promise<void> {
    // The guest has its image to itself, and is told of that one's flushes by QEMU.
    return Promise.resolve();
  }

  async settle(): Promise<void> {
    const { diskId } = this.#options;
    const error = await this.#stop({ force: false });
    await this.#removeNode();
    if (error === null) return;
    throw new SessionError(`QEMU's mirror of disk ${diskId} failed: ${error}`, {
      code: "source-disk-failed",
    });
  }

  async leave(): Promise<void> {
    if (this.#server === null) return;
    if (this.#running) await this.#stop({ force: true });
    await this.#removeNode();
    await this.close();
  }

  async close(): Promise<void> {
    this.#ignoreEvents();
    await this.#server?.close();
    this.#server = null;
  }

  #follow(): void {
    const { qmp, diskId, onFailed } = this.#options;
    this.#ignoreEvents = qmp.onEvent((event) => {
      const state = blockJobStateOf(event, this.#jobId);
      if (state?.kind === "ready") this.#ready = true;
      if (state?.kind !== "ended") return;
      const byItself = this.#running;
      this.#running = false;
      this.#ended.resolve(state.error);
      if (!byItself) return;
      const why = state.error ?? "it ended by itself";
      const text = `QEMU's mirror of disk ${diskId} failed: ${why}`;
      onFailed(new SessionError(text, { code: "source-disk-failed" }));
    });
  }

  /** Without `force`: both sides are equal at the end. Resolves with what went wrong, or null. */
  async #stop({ force }: { readonly force: boolean }): Promise<string | null> {
    if (this.#running) {
      this.#running = false;
      const { qmp } = this.#options;
      const job = { device: this.#jobId, force };
      await qmp.execute("block-job-cancel", job, { timeoutMs: STOP_MS_MAX });
    }
    return this.#ended.promise;
  }

  async #removeNode(): Promise<void> {
    const { qmp, diskId } = this.#options;
    // Absent where it could not be added, or was removed already.
    await qmp
      .execute("blockdev-del", { "node-name": diskNodeNames(diskId).nbd })
      .catch(() => undefined);
  }

  get #jobId(): string {
    return mirrorJobId(this.#options.diskId);
  }
}

export function mirrorJobId(diskId: string): string {
  return `${diskId}-mirror`;
}
