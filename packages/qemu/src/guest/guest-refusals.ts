import { formatQemuVersion, type QemuVersion } from "../qmp/qemu-version.ts";
import type { Accelerator, GuestDefinition } from "./guest-definition.ts";
import { GuestError } from "./guest-error.ts";

export interface GuestRefusalInput {
  readonly definition: GuestDefinition;
  readonly accel: Accelerator;
  readonly qemuVersion: QemuVersion;
}

/** A processor that is whatever the host or the QEMU at hand offers, so another one elsewhere. */
const CPU_MODELS_OF_THE_HOST = ["max", "host"];
const TCG_QEMU_MAJOR_MIN = 10;

/** Why a guest could not be migrated once it ran; empty when nothing speaks against it. */
export function guestRefusals(input: GuestRefusalInput): readonly GuestError[] {
  const { definition, accel, qemuVersion } = input;
  const refusals: GuestError[] = [];
  const model = definition.cpu.split(",", 1)[0] ?? "";
  if (CPU_MODELS_OF_THE_HOST.includes(model.toLowerCase())) {
    refusals.push(
      new GuestError(`a guest with the CPU model ${model} cannot migrate: name one, as qemu64`, {
        code: "cpu-model-not-migratable",
        cpu: definition.cpu,
      }),
    );
  }
  // Older ones lose dirty pages under TCG: guests crash after a migration that looked perfect.
  if (accel === "tcg" && qemuVersion.major < TCG_QEMU_MAJOR_MIN) {
    const version = formatQemuVersion(qemuVersion);
    refusals.push(
      new GuestError(`QEMU ${version} cannot migrate a guest under TCG: use QEMU 10 or KVM`, {
        code: "tcg-needs-qemu-10",
        qemuVersion: version,
      }),
    );
  }
  return refusals;
}
