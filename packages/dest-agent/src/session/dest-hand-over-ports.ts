/** What a hand-over of this host needs of whoever has the guest, and tells it. */
import type { Journal } from "@vmferry/agent";
import type { ControlMessage, DestOwnership } from "@vmferry/protocol";
import type { GuestHolding } from "./guest-holding.ts";
import type { WitnessClaimPorts } from "./witness-claim.ts";

export interface StateDigests {
  readonly ramDigest: string;
  readonly diskDigests: string[];
}

export interface DestHandOverPorts extends WitnessClaimPorts {
  readonly journal: Pick<Journal<"dest">, "append" | "incarnation">;
  /** Null before there is anything of the guest. */
  readonly holding: () => GuestHolding | null;
  /** Resolves when nothing of the guest is missing here any more: at once, where all of it came before. */
  readonly fetch: () => Promise<void>;
  /** What only the source has of a guest that is down, in words; null where it has nothing more. */
  readonly lacks?: () => string | null;
  readonly onState: (state: DestOwnership) => void;
  /** The source has stunned the guest, or asks again. */
  readonly onStunned: () => void;
  /** A message that is not about ownership. */
  readonly onOther: (message: ControlMessage) => void;
}
