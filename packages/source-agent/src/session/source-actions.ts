/** Carries out what the source's ownership transitions ask for. */
import { unreachable } from "@vmferry/core";
import type { Failure, Guest, GuestRegistry, Logger } from "@vmferry/agent";
import type { SourceAction, StunRef } from "@vmferry/protocol";
import type { SourceQemu } from "../adapters/source-qemu.ts";
import type { DataPath } from "./data-path.ts";
import type { PeerLink } from "./peer-link.ts";

export interface SourceActionsPorts {
  readonly guest: Guest;
  readonly registry: GuestRegistry;
  readonly qemu: SourceQemu;
  readonly incarnation: string;
  readonly logger: Logger;
  /** Null until the session has come that far. */
  readonly peer: () => PeerLink | null;
  readonly data: () => DataPath | null;
  readonly failure: () => Failure | null;
  /** The guest runs here again, or its QEMU is gone and with it the guest. */
  readonly onResumed: () => void;
}

export class SourceActions {
  readonly #ports: SourceActionsPorts;

  constructor(ports: SourceActionsPorts) {
    this.#ports = ports;
  }

  async perform(action: SourceAction): Promise<void> {
    const { guest, registry, qemu, logger, peer, data } = this.#ports;
    switch (action.do) {
      case "record":
        logger.info({ record: action.record, epoch: action.epoch }, "ownership record");
        if (action.record === "handed-off") await registry.mark(guest, "handed-off", guest.epoch);
        if (action.record === "reclaimed") await registry.mark(guest, "owned", action.epoch);
        return;
      case "send-token":
        peer()?.send({ kind: "token", ...this.about(action.stun) });
        return;
      case "send-abort": {
        const { code, detail } = this.#ports.failure() ?? { code: "internal", detail: "" };
        peer()?.send({ kind: "abort", ...this.about(action.stun), code, text: detail });
        return;
      }
      case "forward-shut":
        data()?.ram.forwardShut();
        return;
      case "roll-back":
        // QEMU resumes the guest by itself as soon as it sees its socket closed.
        data()?.release();
        await data()?.close();
        await this.#resume(qemu.resume());
        return;
      case "resume-guest":
        data()?.release();
        await this.#resume(qemu.cont());
        return;
      case "quit-guest":
        await guest.quit();
        return;
      default:
        unreachable(action);
    }
  }

  /** The fields by which the dest tells this stun from another. */
  about(stun: StunRef): StunRef & { readonly incarnation: string } {
    return { ...stun, incarnation: this.#ports.incarnation };
  }

  async #resume(attempt: Promise<void>): Promise<void> {
    try {
      await attempt;
    } catch (error) {
      this.#ports.logger.error({ err: error }, "the guest could not be seen running again");
    }
    this.#ports.onResumed();
  }
}
