// The whole of it, against a dest that answers what a test tells it to, over real sockets.
import { mkdir, mkdtemp, readdir, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, expect, test } from "vitest";
import { createLogger } from "@vmferry/agent";
import { systemClock } from "@vmferry/core";
import type { Check, ControlMessageOf, GuestDisk } from "@vmferry/protocol";
import { PeerDialer } from "../adapters/peer-dialer.ts";
import { ScriptedDest, type ScriptedConnection } from "../adapters/scripted-dest.ts";
import { preflight } from "./preflight.ts";
import { sampleGuest, sampleRequest, sampleResult } from "./sample-preflight.ts";

type Probe = ControlMessageOf<"probe">;
const FEATURES = ["zstd", "trace", "probe"];
const logger = createLogger({ role: "source", level: "silent" });

let directory: string;
let dest: ScriptedDest | null;
let probes: Probe[];

beforeEach(async () => {
  directory = await mkdtemp(join(tmpdir(), "preflight-"));
  await mkdir(join(directory, "images"));
  probes = [];
  dest = null;
});

afterEach(async () => {
  await dest?.close();
  await rm(directory, { recursive: true });
});

/** A dest that says hello, and what `answer` does with a probe. */
async function openDest(
  answer: (probe: Probe, connection: ScriptedConnection) => Promise<void> | void,
  features = FEATURES,
): Promise<void> {
  dest = await ScriptedDest.open((connection) => {
    void (async () => {
      await connection.next();
      const hello = { version: 2, versionMin: 2, software: "test", incarnation: "d1" };
      connection.send({ kind: "hello", ...hello, features });
      const probe = (await connection.next()) as Probe;
      probes.push(probe);
      await answer(probe, connection);
    })();
  });
}

async function run(
  options: { readonly disks?: readonly GuestDisk[]; readonly url?: string } = {},
): Promise<ReadonlyMap<string, Check>> {
  const address = { url: options.url ?? dest!.url, token: null, tls: null };
  const checks = await preflight(sampleRequest, sampleGuest({ disks: options.disks ?? [] }), {
    ...{ address, logger, clock: systemClock, witness: null },
    dialer: new PeerDialer(address, systemClock),
    identity: { software: "test", incarnation: "s1" },
    runDir: directory,
    memoryDir: join(directory, "memory"),
    imageDir: join(directory, "images"),
  });
  const names = checks.map(({ name }) => name);
  expect(new Set(names).size).toBe(names.length);
  return new Map(checks.map((check) => [check.name, check]));
}

test("the destination's checks are among the others, and the connection ends", async () => {
  const memory = {
    name: "memory",
    status: "fail",
    detail: "too little",
    hint: "End one.",
  } as const;
  await openDest((_, connection) => {
    connection.send(sampleResult({ checks: [memory], dateMs: Date.now() }));
  });
  const checks = await run();
  expect(checks.get("memory")).toEqual(memory);
  for (const name of ["link", "access", "protocol", "qemu-version", "clock", "destination"]) {
    expect(checks.get(name), name).toMatchObject({ status: "pass" });
  }
  expect(await dest!.connections[0]!.closed()).toBe(4000);
  expect(dest!.connections).toHaveLength(1);
});

test("the destination is told of the guest and its disks, with proofs that are there while it looks", async () => {
  await writeFile(join(directory, "images", "data.raw"), Buffer.alloc(8192));
  const seen: string[] = [];
  await openDest(async ({ probeId }, connection) => {
    const path = join(directory, "images", `data.raw.vmferry-proof-${probeId}`);
    seen.push(await readFile(path, "utf8"));
    connection.send(sampleResult());
  });
  const disks: GuestDisk[] = [{ id: "data", image: "data.raw", format: "raw", mode: "shared" }];
  await run({ disks });
  expect(probes).toHaveLength(1);
  expect(probes[0]).toMatchObject({
    guest: { name: "web1", disks },
    accel: "tcg",
    disks: [{ sizeBytes: 8192, dataBytes: 0, proof: seen[0] }],
    witness: null,
  });
  expect(await readdir(join(directory, "images"))).toEqual(["data.raw"]);
});

test("an agent that cannot be asked is a warning, and is sent nothing that it would not know", async () => {
  let after: unknown = null;
  dest = await ScriptedDest.open((connection) => {
    void (async () => {
      await connection.next();
      const hello = { version: 2, versionMin: 2, software: "test", incarnation: "d1" };
      connection.send({ kind: "hello", ...hello, features: ["zstd"] });
      after = await connection.closed();
    })();
  });
  const checks = await run();
  expect(checks.get("destination")).toMatchObject({ status: "warn" });
  expect(checks.get("protocol")).toMatchObject({ status: "pass" });
  await dest.connections[0]!.closed();
  expect(after).toBe(4000);
  expect(dest.connections[0]!.received).toEqual([]);
});

test("nobody at the destination fails the link alone", async () => {
  await openDest(() => undefined);
  const { url } = dest!;
  await dest!.close();
  dest = null;
  const checks = await run({ url });
  const failed = [...checks.values()].filter(({ status }) => status === "fail");
  expect(failed.map(({ name }) => name)).toEqual(["link"]);
});

test("a clock that is an hour off is told", async () => {
  await openDest((_, connection) => {
    connection.send(sampleResult({ dateMs: Date.now() + 3_600_000 }));
  });
  expect((await run()).get("clock")).toMatchObject({ status: "warn" });
});

test("a disk that cannot travel fails, and the destination is not asked about half a guest", async () => {
  await openDest(() => undefined);
  const disks: GuestDisk[] = [{ id: "data", image: "gone.raw", format: "raw", mode: "copy" }];
  const checks = await run({ disks });
  expect(checks.get("disks")).toMatchObject({ status: "fail" });
  expect(checks.get("destination")).toMatchObject({ status: "warn" });
  expect(probes).toEqual([]);
});

test("a destination that turns this agent away for its version fails the protocol alone", async () => {
  await openDest((_, connection) => {
    const text = "no common protocol version";
    connection.send({ kind: "reject", code: "protocol-version-unsupported", text });
  });
  const checks = await run();
  const failed = [...checks.values()].filter(({ status }) => status === "fail");
  expect(failed).toMatchObject([{ name: "protocol", detail: "no common protocol version" }]);
});
