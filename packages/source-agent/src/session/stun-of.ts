import { assert } from "@vmferry/core";
import type { SourceOwnership, StunRef } from "@vmferry/protocol";

export function stunOf(state: SourceOwnership): StunRef {
  assert("stun" in state && state.stun !== null, "an attempt that has begun has a stun");
  return state.stun;
}
