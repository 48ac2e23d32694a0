/** What a session of this host works with, and what it begins with. */
import type { Channel, Journal, Logger, MigrationStore, WitnessPort } from "@vmferry/agent";
import type { Clock } from "@vmferry/core";
import type { Agreement, ControlMessageOf } from "@vmferry/protocol";
import type { Reception, ReceptionOptions } from "./reception.ts";

export interface DestSessionPorts {
  readonly store: MigrationStore;
  readonly logger: Logger;
  readonly clock: Clock;
  /** Null without a shared directory. */
  readonly witness: Pick<WitnessPort, "decide" | "sees"> | null;
  /** A guest waited for a page of its memory, for so long. */
  readonly onPageFault: (seconds: number) => void;
  /** That both hosts mount; null where there is none. */
  readonly sharedDir: string | null;
  /** Of all guests. */
  readonly guestsDir: string;
  /** Of sockets. */
  readonly runDir: string;
  readonly openReception: (options: ReceptionOptions) => Promise<Reception>;
}

/** A source that offers a guest. */
export interface Arrival {
  readonly channel: Channel;
  readonly offer: ControlMessageOf<"offer">;
  readonly agreement: Agreement;
  /** Of the guest; closed by the session at its end, and removed with an offer of which nothing was recorded. */
  readonly journal: Pick<Journal<"dest">, "append" | "incarnation" | "last" | "close" | "remove">;
}
