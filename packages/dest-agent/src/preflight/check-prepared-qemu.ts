import { fails, passes, skips, type Finding } from "@vmferry/agent";
import { messageOf } from "@vmferry/core";
import { refuseLaunch } from "../session/offer-check.ts";
import { fitPrepared } from "../session/prepared-qemu.ts";
import type { Probe } from "./probed-guest.ts";

const HINT =
  "At the destination, start a QEMU with the guest's machine, memory and devices and with -S " +
  "-incoming defer, and attach the dest agent to it (docs/attach.md).";

/** As an offer is judged: is there the QEMU that the guest needs, where none can be launched for it? */
export function checkPreparedQemu(
  probe: Probe,
  prepared: Parameters<typeof fitPrepared>[1] | null,
): Finding {
  try {
    if (prepared === null) refuseLaunch(probe);
    else fitPrepared(probe, prepared);
  } catch (error) {
    return fails(messageOf(error), HINT);
  }
  if (prepared === null) return skips("The destination launches a QEMU for the guest.");
  return passes(
    `The QEMU that was prepared (process ${prepared.process.pid}) is like the guest's.`,
  );
}
