/** For tests of checks: what a source asks, and a QEMU that a script plays. */
import { writeFile } from "node:fs/promises";
import { join } from "node:path";
import type { Probe } from "./probed-guest.ts";

const CPUS = [
  { name: "qemu64", "unavailable-features": [] },
  { name: "Denverton", "unavailable-features": ["sha-ni"] },
];
const REFUSAL = { class: "GenericError", desc: "Userfaultfd not available" };

export function sampleProbe(guest: Partial<Probe["guest"]> = {}): Probe {
  return {
    kind: "probe",
    probeId: "p1",
    guest: {
      ...{ name: "web1", machine: "pc-q35-7.2", memoryBytes: 2 ** 29, cpu: "qemu64" },
      boot: { kernel: "vmlinuz" },
      ...guest,
    },
    accel: "tcg",
    disks: [],
    witness: null,
  };
}

/** One that has no userfaultfd. Returns its path. */
export async function installQemu(directory: string): Promise<string> {
  const path = join(directory, "qemu");
  const replies = [
    { QMP: { version: {}, capabilities: [] } },
    { return: CPUS, id: "cpus" },
    { error: REFUSAL, id: "post-copy" },
  ];
  const script = `#!/bin/sh
case "$*" in
  --version) echo "QEMU emulator version 10.0.2" ;;
  "-machine help") printf 'Supported machines are:\\npc-q35-7.2   Standard PC\\n' ;;
  *) cat > /dev/null; cat <<'END'
${replies.map((reply) => JSON.stringify(reply)).join("\n")}
END
  ;;
esac
`;
  await writeFile(path, script, { mode: 0o755 });
  return path;
}
