import type { ControlMessageOf, SourceEvent } from "@vmferry/protocol";

/** An answer of the dest as the ownership transitions know it. */
export function eventOf(
  message: ControlMessageOf<"prepared" | "taken" | "complete" | "refused">,
): SourceEvent {
  const { migrationId, epoch, generation, incarnation } = message;
  const answer = { stun: { migrationId, epoch, generation }, incarnation };
  return message.kind === "prepared"
    ? { kind: "prepared", ...answer, ramDigest: message.ramDigest }
    : { kind: message.kind, ...answer };
}
