import { fails, passes, skips, warns, type Finding } from "@vmferry/agent";
import { guestRefusals } from "@vmferry/qemu";
import { messageOf } from "@vmferry/core";
import { refusalInput, type PreflightGuest } from "./preflight-guest.ts";
import type { PeerAnswer } from "./peer-answer.ts";

const TCG_QEMU_MAJOR_MIN = 10;
const UPGRADE_HINT = "Upgrade the QEMU of the destination, or use KVM on both hosts.";

/** At both ends: what is older may lose memory, or not know what the newer one sends. */
export function checkQemuVersion(guest: PreflightGuest, answer: PeerAnswer): Finding {
  const refusal = guestRefusals(refusalInput(guest)).find(
    ({ detail }) => detail.code === "tcg-needs-qemu-10",
  );
  if (refusal !== undefined) {
    return fails(`At the source: ${messageOf(refusal)}`, "Upgrade QEMU and start the guest anew.");
  }
  const { version: source } = guest.qmp;
  const theirs = answer.kind === "answered" ? numbersOf(answer.result.qemuVersion) : null;
  if (theirs === null) return skips("The QEMU of the destination is not known.");
  const [major, minor] = theirs;
  const text = `QEMU ${source.major}.${source.minor} at the source, ${major}.${minor} at the destination`;
  if (guest.accel === "tcg" && major < TCG_QEMU_MAJOR_MIN) {
    return fails(`${text}: under TCG one older than 10 loses what the guest writes.`, UPGRADE_HINT);
  }
  if (major < source.major || (major === source.major && minor < source.minor)) {
    return warns(
      `${text}: an older QEMU may not load what a newer one saves.`,
      "Upgrade the QEMU of the destination.",
    );
  }
  return passes(`${text}.`);
}

function numbersOf(version: string): readonly [number, number] | null {
  const match = /^(\d{1,4})\.(\d{1,4})/.exec(version);
  return match === null ? null : [Number(match[1]), Number(match[2])];
}
