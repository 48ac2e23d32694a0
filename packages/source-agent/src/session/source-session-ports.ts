import type { Clock } from "@vmferry/core";
import type { Guest, Journal, Logger, MigrationStore, WitnessPort } from "@vmferry/agent";
import type { Dialer } from "../adapters/peer-dialer.ts";
import type { SourceQemu } from "../adapters/source-qemu.ts";
import type { Cargo, CargoOptions } from "./cargo.ts";
import type { Identity } from "./control-link.ts";
import type { MovingGuest } from "./source-hand-over.ts";

/** A guest that is offered, and whose QEMU may be steered. */
export type OfferedGuest = MovingGuest &
  Pick<
    Guest,
    "definition" | "accel" | "uuid" | "qemuVersion" | "attachment" | "exited" | "busyWith"
  >;

/** What a session needs of its surroundings. */
export interface SourceSessionPorts {
  readonly guest: OfferedGuest;
  readonly qemu: Pick<SourceQemu, keyof SourceQemu>;
  /** Closed by the session at its end. */
  readonly openJournal: () => Promise<
    Pick<Journal<"source">, "append" | "incarnation" | "last" | "close">
  >;
  readonly openCargo: (
    options: Omit<
      CargoOptions,
      | "qemu"
      | "runDir"
      | "sockets"
      | "memoryDir"
      | "sharedDir"
      | "imageDir"
      | "random"
      | "dialPages"
    >,
  ) => Promise<Cargo>;
  readonly dialer: Dialer;
  /** Null without a shared directory. */
  readonly witness: Pick<WitnessPort, "prove" | "decide" | "forget"> | null;
  readonly identity: Identity;
  readonly store: MigrationStore;
  readonly logger: Logger;
  readonly clock: Clock;
  /** 0 to 1, without it. */
  readonly random: () => number;
  readonly bulkConnections: number;
}
