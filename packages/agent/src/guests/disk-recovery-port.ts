import type { GuestDefinition } from "@vmferry/protocol";
import type { QmpClient } from "@vmferry/qemu";
import type { Logger } from "pino";

/** A guest of an earlier life, as far as its disks are concerned. */
export interface EarlierDisks {
  /** The guest's own. */
  readonly directory: string;
  readonly disks: GuestDefinition["disks"];
  /** Whether QEMU mirrors them, whatever their format: an agent has not put itself into its graph. */
  readonly mirrored: boolean;
  readonly imageDir: string;
  readonly logger: Logger;
}

/**
 * `suspect`: an image may have lost something that the guest wrote, and the guest stands still. Nobody
 * but a person may start it: a later flush would succeed, and lie.
 */
export type GivenBack = "nothing" | "given" | "suspect";

export interface DiskRecoveryPort {
  /**
   * What was exported is again, as it is written down beside the guest: its QEMU may wait for that
   * before it answers anything. Never rejects.
   */
  reopen(guest: EarlierDisks): Promise<void>;
  /**
   * The guest gets its disks back. What was reopened stays until that has succeeded, so that it may
   * be tried again.
   */
  giveBack(guest: EarlierDisks & { readonly qmp: QmpClient }): Promise<GivenBack>;
  /** The guest's QEMU is gone. */
  forget(guest: EarlierDisks): Promise<void>;
}
