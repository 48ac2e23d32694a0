// Records small post-copy migrations of a guest that does nothing but write, for the codec's tests.
//
//   node bench/postcopy-record.ts <directory>
//
// Of each migration: <name>.forward.gz, what the source sent, and <name>.back, what the dest said.
// The pages of pre-copy are cut out of it: ROMs are most of what is left when zeros are compressed.

import { readFileSync, writeFileSync } from "node:fs";
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { gzipSync } from "node:zlib";
import { busyGuestKernel } from "../packages/qemu/src/stream/lab-guest.ts";
import { LabQemu } from "../packages/qemu/src/stream/lab-qemu.ts";
import { PostcopyRelay } from "./postcopy-relay.ts";

const into = process.argv[2] ?? ".";
const directory = await mkdtemp(join(tmpdir(), "vmferry-record-"));
const path = (name: string): string => join(directory, name);
const unix = (name: string): string => `unix:${path(name)}`;
writeFileSync(path("kernel"), busyGuestKernel());

async function record(name: string, preempt: boolean): Promise<void> {
  const guest = [
    ...["-machine", "pc-q35-10.0,accel=tcg", "-cpu", "qemu64", "-m", "16M"],
    ...["-no-user-config", "-kernel", path("kernel")],
  ];
  const source = await LabQemu.start({ directory, name: `${name}-s` }, guest);
  const incoming = [...guest, "-S", "-incoming", "defer"];
  const dest = await LabQemu.start({ directory, name: `${name}-d` }, incoming);
  const capabilities = ["return-path", "postcopy-ram", ...(preempt ? ["postcopy-preempt"] : [])];
  for (const qemu of [source, dest]) await qemu.setCapabilities(...capabilities);
  await sleep(1000);
  await source.execute("migrate-set-parameters", {
    "max-bandwidth": 2 ** 20,
    "max-postcopy-bandwidth": 2 ** 20,
    "downtime-limit": 1,
  });
  const relay = (prefix: string, to: string): PostcopyRelay =>
    new PostcopyRelay({
      sourcePath: path(`${prefix}.sock`),
      destPath: path(to),
      recordPrefix: path(prefix),
      say: console.log,
      decode: prefix === name,
    });
  const first = relay(name, "dest.sock");
  await dest.execute("migrate-incoming", { uri: unix("dest.sock") });
  await source.execute("migrate", { uri: unix(`${name}.sock`) });
  while (first.pages < 4300) await sleep(10);
  await source.execute("migrate-start-postcopy");
  await dest.waitForMigration("postcopy-active");
  await sleep(200);
  await dest.execute("cont");
  if (!preempt) {
    await sleep(1000);
    first.cut();
    await source.waitForMigration("postcopy-paused");
    await dest.waitForMigration("postcopy-paused");
    await dest.execute("migrate-recover", { uri: unix("again.sock") });
    relay("recovery10", "again.sock");
    await source.execute("migrate", { uri: unix("recovery10.sock"), resume: true });
  }
  await source.waitForMigration("completed");
  await dest.waitForMigration("completed");
  await sleep(200);
  await source.kill();
  await dest.kill();
}

/** From the end of RAM's START to SWITCHOVER_START, where whole records begin. */
function withoutPrecopy(stream: Buffer): Buffer {
  const footer = Buffer.from("7e00000001", "hex");
  const from = stream.indexOf(footer) + footer.length;
  const to = stream.indexOf(Buffer.from("08000b0000080006", "hex"));
  return to < 0 ? stream : Buffer.concat([stream.subarray(0, from), stream.subarray(to)]);
}

function keep(prefix: string, channel: number, as: string): void {
  const forward = withoutPrecopy(readFileSync(path(`${prefix}.${channel}.forward`)));
  const back = readFileSync(path(`${prefix}.${channel}.back`));
  const packed = gzipSync(forward, { level: 9 });
  console.log(as, forward.length, "bytes, packed", packed.length, ", back", back.length);
  writeFileSync(join(into, `${as}.forward.gz`), packed);
  if (back.length > 0) writeFileSync(join(into, `${as}.back`), back);
}

await record("postcopy10", false);
await record("preempt10", true);
keep("postcopy10", 0, "postcopy10");
keep("recovery10", 0, "recovery10");
keep("preempt10", 0, "preempt10");
keep("preempt10", 1, "preempt10-requested");
await rm(directory, { recursive: true });
process.exit(0);
