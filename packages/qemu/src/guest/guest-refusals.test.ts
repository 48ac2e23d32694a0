import { describe, expect, it } from "vitest";
import type { Accelerator, GuestDefinition } from "./guest-definition.ts";
import { guestRefusals } from "./guest-refusals.ts";

function codesOf(cpu: string, accel: Accelerator, major: number): string[] {
  const definition: GuestDefinition = {
    name: "web1",
    machine: "pc-q35-7.2",
    accel,
    cpu,
    vcpus: 1,
    memoryBytes: 2 ** 26,
    disks: [],
    serial: "file",
  };
  const qemuVersion = { major, minor: 2, micro: 22 };
  return guestRefusals({ definition, accel, qemuVersion }).map(({ code }) => code);
}

describe("guestRefusals", () => {
  it("has nothing against a named CPU model under KVM, or under TCG from QEMU 10 on", () => {
    expect(codesOf("qemu64", "kvm", 7)).toEqual([]);
    expect(codesOf("qemu64", "tcg", 10)).toEqual([]);
    expect(codesOf("max-speed", "tcg", 11)).toEqual([]);
  });

  it.each(["max", "host", "MAX", "host,vmx=off"])("refuses the CPU model %s", (cpu) => {
    expect(codesOf(cpu, "kvm", 10)).toEqual(["cpu-model-not-migratable"]);
  });

  it("refuses TCG on a QEMU before 10, whatever was asked for", () => {
    expect(codesOf("qemu64", "tcg", 9)).toEqual(["tcg-needs-qemu-10"]);
  });

  it("tells every refusal at once", () => {
    expect(codesOf("max", "tcg", 7)).toEqual(["cpu-model-not-migratable", "tcg-needs-qemu-10"]);
  });
});
