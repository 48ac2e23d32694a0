import type { ControlKind, ControlMessageOf } from "./control-messages.ts";

const about = {
  migrationId: "1b4e28ba-2fa1-41d2-883f-0016d3cca427",
  epoch: 8,
  generation: 1,
  incarnation: "d1",
};
const session = "5e".repeat(32);
const digests = { ramDigest: "d1".repeat(32), diskDigests: ["d2".repeat(32)] };

const guest: ControlMessageOf<"offer">["guest"] = {
  name: "web1",
  machine: "pc-q35-7.2",
  accel: "auto",
  cpu: "qemu64",
  vcpus: 2,
  memoryBytes: 512 * 1024 ** 2,
  boot: { kernel: "vmlinuz", initrd: "initrd.img", cmdline: "console=ttyS0" },
  disks: [
    { id: "data", image: "pool/data.raw", format: "raw", mode: "shared" },
    { id: "disk0", image: "web1.raw", format: "raw", mode: "copy" },
  ],
  serial: "file",
};

const disks: ControlMessageOf<"offer">["disks"] = [
  { sizeBytes: 2 ** 40, dataBytes: 0, blockBytes: 2 ** 20, proof: "9f".repeat(32), lazy: true },
  { sizeBytes: 2 ** 31, dataBytes: 2 ** 30, blockBytes: 65_536, proof: null },
];

/** One well-formed message of every kind, with every optional field, for tests to begin from. */
export const sampleMessages: { readonly [K in ControlKind]: ControlMessageOf<K> } = {
  hello: {
    kind: "hello",
    version: 2,
    versionMin: 2,
    features: ["zstd"],
    software: "vmferry 0.1.0",
    incarnation: "s1",
  },
  offer: {
    kind: "offer",
    migrationId: about.migrationId,
    epoch: 8,
    guest,
    accel: "tcg",
    uuid: "6ba7b810-9dad-41d1-80b4-00c04fd430c8",
    qemuVersion: "10.0.2 (Debian 1:10.0.2+ds-2)",
    bulkConnections: 4,
    disks,
    hashSeed: "00112233445566ff",
    incarnation: "s1",
    postCopy: true,
    witness: "3c".repeat(32),
    pageFileKey: "5e".repeat(32),
    launchRefusal: "it has a usb-tablet (input0)",
    traceparent: `00-${"4b".repeat(16)}-${"b7".repeat(8)}-01`,
  },
  accept: {
    kind: "accept",
    migrationId: about.migrationId,
    epoch: 8,
    session,
    creditBytes: 16 * 1024 ** 2,
    qemuVersion: "10.0.2",
    postCopyRefusal: "Userfaultfd not available",
    witness: true,
  },
  reject: { kind: "reject", code: "migration-active", text: "this migration is known already" },
  probe: {
    kind: "probe",
    probeId: "0b9f",
    guest,
    accel: "kvm",
    disks,
    witness: "3c".repeat(32),
    launchRefusal: "it has a usb-tablet (input0)",
  },
  "probe-result": {
    kind: "probe-result",
    qemuVersion: "10.0.2",
    postCopyRefusal: "Userfaultfd not available",
    dateMs: 1_795_718_197_000,
    checks: [
      { name: "machine-type", status: "pass", detail: "known", hint: null },
      { name: "memory", status: "fail", detail: "too little", hint: "end a guest" },
    ],
  },
  resume: { kind: "resume", ...about, session, received: 17 },
  received: { kind: "received", received: 64 },
  "bulk-hello": {
    kind: "bulk-hello",
    version: 2,
    migrationId: about.migrationId,
    session,
    index: 3,
  },
  "pages-hello": { kind: "pages-hello", version: 2, ...about, lane: "urgent", attempt: 1 },
  "blocks-hello": { kind: "blocks-hello", version: 2, ...about, attempt: 1 },
  credit: { kind: "credit", bytes: 524_288 },
  "return-path": { kind: "return-path", bytes: Buffer.from("0002000400000001", "hex") },
  stunned: { kind: "stunned", ...about, ...digests },
  prepared: { kind: "prepared", ...about, ...digests },
  token: { kind: "token", ...about },
  taken: { kind: "taken", ...about },
  running: { kind: "running", ...about },
  complete: { kind: "complete", ...about },
  refused: { kind: "refused", ...about, code: "dest-qemu-died", text: "the dest's QEMU has died" },
  abort: { kind: "abort", ...about, code: "cancelled", text: "cancelled by request" },
};
