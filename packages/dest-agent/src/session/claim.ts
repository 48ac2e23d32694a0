/** Who may go on with a hand-over: what the source's offer said, which only it and its dest know. */
import { timingSafeEqual } from "node:crypto";
import type { StunRef } from "@vmferry/protocol";

export interface Claim {
  readonly stun: StunRef;
  /** Of the source's journal. */
  readonly incarnation: string;
}

/** What somebody shows who wants to go on with it. */
export type Shown = StunRef & Pick<Claim, "incarnation">;

export function isOfClaim({ stun, incarnation }: Claim, shown: Shown): boolean {
  return (
    shown.migrationId === stun.migrationId &&
    shown.epoch === stun.epoch &&
    shown.generation === stun.generation &&
    sameText(shown.incarnation, incarnation)
  );
}

export function stunOf({ migrationId, epoch, generation }: StunRef): StunRef {
  return { migrationId, epoch, generation };
}

function sameText(given: string, expected: string): boolean {
  const [a, b] = [Buffer.from(given), Buffer.from(expected)];
  return a.length === b.length && timingSafeEqual(a, b);
}
