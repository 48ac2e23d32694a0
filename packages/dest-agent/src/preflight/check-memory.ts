import { fails, passes, type Finding, type GuestRegistry } from "@vmferry/agent";
import { messageOf } from "@vmferry/core";
import type { Probe } from "./probed-guest.ts";

const HINT =
  "Free memory at the destination, or raise its VMFERRY_GUEST_MEMORY_BYTES_MAX where that is set.";

export function checkMemory(
  { guest }: Probe,
  registry: Pick<GuestRegistry, "refuseMemory">,
): Finding {
  try {
    registry.refuseMemory(guest, "dest-memory-insufficient");
  } catch (error) {
    return fails(messageOf(error), HINT);
  }
  return passes(`The destination has the guest's ${guest.memoryBytes} bytes of memory.`);
}
