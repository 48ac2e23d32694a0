import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import type { ControlMessageOf } from "@vmferry/protocol";
import { checkOffer, definitionOf } from "./offer-check.ts";

const offer: ControlMessageOf<"offer"> = {
  kind: "offer",
  migrationId: "m1",
  epoch: 3,
  guest: {
    name: "web1",
    machine: "pc-q35-7.2",
    accel: "auto",
    memoryBytes: 2 ** 29,
    boot: { kernel: "vmlinuz" },
  },
  accel: "tcg",
  uuid: "6ba7b810-9dad-41d1-80b4-00c04fd430c8",
  qemuVersion: "10.0.2",
  bulkConnections: 1,
  disks: [],
  hashSeed: "00112233445566ff",
  incarnation: "s1",
  postCopy: false,
  witness: null,
};

/** Says of itself what `inspectQemuBinary` asks. */
const FAKE_QEMU = `#!/bin/sh
case "$1" in
  --version) echo "QEMU emulator version 7.2.22" ;;
  *) printf 'Supported machines are:\\npc-q35-7.2   Standard PC\\npc-q35-7.1   Standard PC\\n' ;;
esac
`;

let directory: string;
let qemu: string;

beforeAll(async () => {
  directory = await mkdtemp(join(tmpdir(), "vmferry-offer-"));
  qemu = join(directory, "qemu");
  await writeFile(qemu, FAKE_QEMU, { mode: 0o755 });
});

afterAll(async () => {
  await rm(directory, { recursive: true });
});

describe("an offer", () => {
  test("is fine when this QEMU knows the machine", async () => {
    await expect(checkOffer(offer, qemu)).resolves.toBeUndefined();
  });

  test("of a machine that this QEMU does not know is refused, with its version", async () => {
    const newer = { ...offer, guest: { ...offer.guest, machine: "pc-q35-10.0" } };
    const failed = checkOffer(newer, qemu);
    await expect(failed).rejects.toMatchObject({ code: "machine-type-unsupported" });
    await expect(failed).rejects.toThrow(/7\.2 does not know .* pc-q35-10\.0/);
  });

  test("of a machine whose name only begins like a known one is refused", async () => {
    const longer = { ...offer, guest: { ...offer.guest, machine: "pc-q35-7" } };
    await expect(checkOffer(longer, qemu)).rejects.toMatchObject({
      code: "machine-type-unsupported",
    });
  });

  test("cannot be judged without a QEMU", async () => {
    const missing = join(directory, "missing");
    await expect(checkOffer(offer, missing)).rejects.toMatchObject({ code: "qemu-not-usable" });
  });
});

describe("the guest as it will run here", () => {
  test("has the accelerator that the source resolved, not auto", () => {
    expect(definitionOf(offer).accel).toBe("tcg");
    expect(definitionOf({ ...offer, accel: "kvm" }).accel).toBe("kvm");
  });

  test("has its defaults filled in, and the offer is left as it was", () => {
    const before = structuredClone(offer);
    expect(definitionOf(offer)).toMatchObject({
      cpu: "qemu64",
      vcpus: 1,
      disks: [],
      serial: "file",
    });
    expect(offer).toEqual(before);
  });
});
