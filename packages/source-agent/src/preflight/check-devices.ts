import { fails, passes, type Finding } from "@vmferry/agent";
import type { PreflightGuest } from "./preflight-guest.ts";

const HINT = "Unplug the device, or start the guest without it.";

/** QEMU knows which of its devices cannot leave. */
export async function checkDevices({ qmp }: Pick<PreflightGuest, "qmp">): Promise<Finding> {
  const { blockedReasons } = await qmp.execute("query-migrate");
  if (blockedReasons.length === 0) return passes("No device of the guest stands in the way.");
  return fails(`QEMU cannot migrate the guest: ${blockedReasons.join("; ")}`, HINT);
}
