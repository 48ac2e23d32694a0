import { mkdir, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { afterEach, describe, expect, it } from "vitest";
import type { ControlMessage } from "@vmferry/protocol";
import { AgentProcess, ApiProblem, controlOf, qemusUnder } from "@vmferry/testkit";
import { expectArrives, expectKept, expectMoves, expectWorksAtSource } from "../expect-guest.ts";
import { LONG_PRE_COPY } from "../held-open.ts";
import type { MoveOptions, MovingGuest } from "../moving-guest.ts";
import { useProxiedLab } from "../test-lab.ts";

const MIB = 1024 * 1024;
/**
 * A QEMU that was built before the guest's machine type came up. VMFERRY_OLD_QEMU can name a real
 * one, such as Debian 12's 7.2; without it, it is today's that hides what is new.
 */
const OLD_QEMU = `#!/bin/sh
if [ "$*" = "-machine help" ]; then
  qemu-system-x86_64 -machine help | grep -v "^pc-q35-10"
  exit
fi
exec qemu-system-x86_64 "$@"
`;

describe("a migration is refused and the guest works on", () => {
  const test = useProxiedLab();
  const started: AgentProcess[] = [];
  afterEach(async () => {
    for (const agent of started.splice(0)) await agent.kill();
  });

  /** Another dest agent, which the source takes for its peer. */
  const replaceDest = async (
    flags: readonly string[],
    environment: Readonly<Record<string, string>> = {},
  ): Promise<AgentProcess> => {
    const state = join(test.lab.directory, `other${started.length}`);
    const dest = await AgentProcess.start({
      role: "dest",
      environment,
      flags: [
        ...["--state-dir", state, "--image-dir", join(test.lab.directory, "images")],
        ...["--api-listen", "127.0.0.1:0", "--peer-listen", "127.0.0.1:0", ...flags],
      ],
    });
    started.push(dest);
    test.proxy.towards(dest.peerPort!);
    return dest;
  };

  const refusalOf = async (request: Promise<unknown>): Promise<unknown> => {
    const error = await request.then(
      () => null,
      (thrown: unknown) => thrown,
    );
    expect(error).toBeInstanceOf(ApiProblem);
    return (error as ApiProblem).detail;
  };

  it("when the destination is not a configured peer: at once, and no migration is made", async () => {
    const guest = await test.boot();
    expect(await refusalOf(guest.migrate({ destination: "elsewhere" }))).toMatchObject({
      code: "destination-unknown",
      status: 422,
    });
    await expectWorksAtSource(guest, performance.now());
    await expectMoves(guest);
  });

  /** Before there is a migration, by this check alone. */
  const expectRefused = async (
    guest: MovingGuest,
    check: string,
    options: MoveOptions = {},
  ): Promise<string> => {
    const sinceMs = performance.now();
    const { code, problem } = (await refusalOf(guest.migrate(options))) as ApiProblem["detail"];
    expect(code).toBe("preflight-failed");
    expect(problem.errors?.map(({ field }) => field)).toEqual([check]);
    await expectWorksAtSource(guest, sinceMs);
    return problem.errors![0]!.detail;
  };

  /** The next question is not asked: an offer has to be refused by itself. */
  const destOfAnOlderRelease = (): Promise<unknown> => {
    const match: ReturnType<typeof controlOf> = (message) =>
      message.direction === "to-source" && controlOf("hello")(message);
    const withoutProbe = (hello: ControlMessage): ControlMessage =>
      ({ ...hello, features: ["zstd"] }) as ControlMessage;
    return test.proxy.replace(match, withoutProbe);
  };

  it("when nobody answers at the destination", async () => {
    const guest = await test.boot();
    await expectRefused(guest, "link", { destination: "nowhere" });
    await expectMoves(guest);
  });

  it("when the destination takes the connection and says nothing", async () => {
    const guest = await test.boot();
    test.proxy.block();
    await expectRefused(guest, "link");
    test.proxy.restore();
    await expectMoves(guest);
  });

  it("when it is under way already: the first migration is not disturbed", async () => {
    const guest = await test.boot();
    const id = await guest.migrate({ limits: { bandwidthBytesPerSecond: 32 * MIB } });
    const problem = await refusalOf(guest.migrate());
    expect(problem).toMatchObject({ code: "migration-active", status: 409 });
    await expectArrives(guest, id);
    expect(await refusalOf(guest.migrate())).toMatchObject({ code: "guest-not-running" });
  });

  it("when the destination has a guest of this name, which is left alone", async () => {
    const guest = await test.boot();
    const there = await test.lab.dest.api.startGuest({
      name: guest.name,
      machine: "pc-q35-10.0",
      memoryBytes: 64 * MIB,
      boot: { kernel: "vmlinuz" },
    });
    await expectRefused(guest, "guest-name");
    const sinceMs = performance.now();
    void destOfAnOlderRelease();
    const id = await guest.migrate();
    const migration = await test.lab.source.api.wait(id, 30_000);
    expect(migration).toMatchObject({ phase: "failed", error: { code: "dest-guest-exists" } });
    await expectWorksAtSource(guest, sinceMs);
    expect(await guest.atDest()).toMatchObject({ state: "running", pid: there.pid, epoch: 1 });
    await test.lab.dest.api.powerOff(guest.name);
    await expectMoves(guest);
  });

  it("when the destination's QEMU does not know its machine type", async () => {
    const script = join(test.lab.directory, "old", "qemu-system-x86_64");
    await mkdir(join(test.lab.directory, "old"));
    await writeFile(script, OLD_QEMU, { mode: 0o755 });
    const qemu = process.env["VMFERRY_OLD_QEMU"] ?? script;
    const guest = await test.boot({ machine: "pc-q35-10.0" });
    const dest = await replaceDest(["--qemu", qemu]);
    expect(await expectRefused(guest, "machine-type")).toContain("pc-q35-10.0");
    const sinceMs = performance.now();
    void destOfAnOlderRelease();
    const id = await guest.migrate();
    const { error } = await expectKept(guest, id, {
      code: "machine-type-unsupported",
      during: "preparing",
      sinceMs,
    });
    expect(error!.detail).toContain("pc-q35-10.0");
    expect(await dest.api.guests()).toEqual([]);
    test.proxy.towards(test.lab.dest.peerPort!);
    await expectMoves(guest);
  });

  it("when the destination has not the memory that it needs", async () => {
    const guest = await test.boot({ memoryMib: 256 });
    const dest = await replaceDest(["--guest-memory-bytes-max", `${128 * MIB}`]);
    expect(await expectRefused(guest, "memory")).toContain(`${128 * MIB}`);
    const sinceMs = performance.now();
    const id = await guest.migrate({ allowUnsafe: ["memory"] });
    const { error } = await expectKept(guest, id, {
      code: "dest-memory-insufficient",
      during: "preparing",
      sinceMs,
    });
    expect(error!.detail).toContain(`${128 * MIB}`);
    expect(await dest.api.guests()).toEqual([]);
    expect(qemusUnder(join(test.lab.directory, "other0"))).toEqual([]);
    test.proxy.towards(test.lab.dest.peerPort!);
    await expectMoves(guest);
  });

  it("when the destination asks for another peer token, without telling it the right one", async () => {
    const guest = await test.boot();
    const dest = await replaceDest([], { VMFERRY_PEER_TOKEN: "the-right-peer-token-of-the-dest" });
    const detail = await expectRefused(guest, "access");
    expect(detail).toContain("VMFERRY_PEER_TOKEN");
    expect(JSON.stringify([detail, dest.logText, test.lab.source.logText])).not.toContain(
      "the-right-peer-token",
    );
    expect(await dest.api.guests()).toEqual([]);
    test.proxy.towards(test.lab.dest.peerPort!);
    await expectMoves(guest);
  });

  it.each(["to-source", "to-dest"] as const)(
    "when the agents have no protocol version in common, seen by the hello %s",
    async (direction) => {
      const guest = await test.boot();
      const match: ReturnType<typeof controlOf> = (message) =>
        message.direction === direction && controlOf("hello")(message);
      const replaced = test.proxy.replace(match, (hello) => ({ ...hello, ...ofTheFuture }));
      expect(await expectRefused(guest, "protocol")).toContain("99");
      await replaced;
      await expectMoves(guest);
    },
  );

  it("when a migration of it was cancelled a moment ago, nothing stands in the way of the next", async () => {
    const guest = await test.boot();
    const first = await guest.migrate(LONG_PRE_COPY);
    await guest.inPhase(first, "pre-copy");
    await test.lab.source.api.cancel(first);
    await test.lab.source.api.wait(first, 10_000);
    await expectMoves(guest);
  });
});

/** An agent that has given up everything that this one speaks. */
const ofTheFuture = { version: 99, versionMin: 99 } as unknown as ControlMessage;
