import { fails, passes, type Finding, type GuestRegistry } from "@vmferry/agent";
import { messageOf } from "@vmferry/core";

const HINT = "Power that guest off, or start the one that shall move under another name.";

export function checkGuestName(name: string, registry: Pick<GuestRegistry, "refuseName">): Finding {
  try {
    registry.refuseName(name, "dest-guest-exists");
  } catch (error) {
    return fails(messageOf(error), HINT);
  }
  return passes(`The destination has no guest ${name}.`);
}
