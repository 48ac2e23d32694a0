import { messageOf } from "../cli-error.ts";
import { fails, passes, warns, type Finding } from "./finding.ts";
import { runProgramHere } from "./run-program.ts";

/** Older ones lose memory changes of guests under TCG while they migrate. */
const TCG_MAJOR_MIN = 10;
const INSTALL =
  "Install QEMU 10 (Debian 13, or bookworm-backports: qemu-system-x86), or name another one with --qemu or VMFERRY_QEMU.";

export async function checkQemu(qemu: string): Promise<Finding> {
  let output: string;
  try {
    output = await runProgramHere(qemu, ["--version"]);
  } catch (error) {
    const isMissing = (error as NodeJS.ErrnoException).code === "ENOENT";
    return fails(isMissing ? `there is no ${qemu}` : messageOf(error), INSTALL);
  }
  const [, version, major] = /^QEMU emulator version ((\d+)\.\d+\.\d+)/.exec(output) ?? [];
  if (version === undefined) return fails(`${qemu} does not say that it is QEMU`, INSTALL);
  if (Number(major) >= TCG_MAJOR_MIN) return passes(`QEMU ${version} (${qemu})`);
  return warns(`QEMU ${version} (${qemu}) migrates guests under KVM only`, INSTALL);
}
