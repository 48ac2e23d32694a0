import { fails, passes, type Finding } from "@vmferry/agent";
import { messageOf } from "@vmferry/core";
import { guestRefusals } from "@vmferry/qemu";
import { refusalInput, type PreflightGuest } from "./preflight-guest.ts";

const HINT = "Start the guest anew with a named CPU model, such as qemu64.";

/** One that is whatever the host has would be another one elsewhere. */
export function checkCpuModel(guest: PreflightGuest): Finding {
  const refusal = guestRefusals(refusalInput(guest)).find(
    ({ detail }) => detail.code === "cpu-model-not-migratable",
  );
  if (refusal !== undefined) return fails(messageOf(refusal), HINT);
  return passes(`The CPU model ${guest.definition.cpu} is the same on every host.`);
}
