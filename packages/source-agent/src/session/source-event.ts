import { stateDigest, type ControlMessageOf, type SourceEvent } from "@vmferry/protocol";

/** An answer of the dest as the ownership transitions know it. */
export function eventOf(
  message: ControlMessageOf<"prepared" | "taken" | "complete" | "refused">,
): SourceEvent {
  const { migrationId, epoch, generation, incarnation } = message;
  const answer = { stun: { migrationId, epoch, generation }, incarnation };
  return message.kind === "prepared"
    ? { kind: "prepared", ...answer, digest: stateDigest(message) }
    : { kind: message.kind, ...answer };
}
