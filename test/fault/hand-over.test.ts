import { describe, expect, it } from "vitest";
import type { ControlMessage } from "@vmferry/protocol";
import { ApiProblem, controlOf } from "@vmferry/testkit";
import {
  expectArrives,
  expectMoves,
  expectNothingAtDest,
  expectSilentAtSource,
  expectWorksAtSource,
} from "../expect-guest.ts";
import { pause, type MovingGuest } from "../moving-guest.ts";
import { useProxiedLab } from "../test-lab.ts";

/** Longer than the source waits between two questions. */
const SETTLED_MS_MAX = 10_000;
/** An agent that waits for something ends itself after 15 seconds, with 1. */
const STOPPED_MS_MAX = 8000;

// Here nobody may give up: the source has let go of the guest and only the dest's answer counts.
describe("when the link is lost around the hand-over", () => {
  const test = useProxiedLab();

  /** Migrates up to the moment in which this message is on the wire, and has not arrived. */
  const untilOnTheWay = async (
    guest: MovingGuest,
    kind: ControlMessage["kind"],
  ): Promise<string> => {
    const held = test.proxy.hold(controlOf(kind));
    const id = await guest.migrate();
    await held;
    return id;
  };

  const expectSettles = async (guest: MovingGuest, id: string): Promise<void> => {
    const sinceMs = performance.now();
    const { phases } = await expectArrives(guest, id);
    expect(phases.map(({ phase }) => phase)).toContain("in-doubt");
    const { phase, at } = phases.at(-1)!;
    expect(phase).toBe("completed");
    expect(Date.parse(at) - (Date.now() - (performance.now() - sinceMs))).toBeLessThan(
      SETTLED_MS_MAX,
    );
  };

  /** A restarted agent has the hand-over of its predecessor, not its counters. */
  const expectTaken = async (guest: MovingGuest, id: string): Promise<void> => {
    expect(await test.lab.source.api.wait(id, 20_000)).toMatchObject({ phase: "completed" });
    expect(await test.lab.dest.api.wait(id, 20_000)).toMatchObject({ phase: "completed" });
    expect((await guest.verifyAtDest()).findings).toEqual([]);
    expect(await guest.atDest()).toMatchObject({ state: "running", epoch: 2 });
    await expect.poll(() => guest.qemus("source"), { timeout: 10_000 }).toEqual([]);
    expect(guest.qemus("dest")).toHaveLength(1);
  };

  it("before TOKEN has arrived: nobody runs until it is back, then the dest does", async () => {
    const guest = await test.boot();
    const id = await untilOnTheWay(guest, "token");
    test.proxy.cut();
    await guest.inPhase(id, "in-doubt");
    expect(await guest.atSource()).toMatchObject({ state: "in-doubt" });
    expect(await guest.atDest()).toMatchObject({ state: "incoming" });
    await expectSilentAtSource(guest);
    expect(test.lab.follow(test.lab.destSerialLog(guest.name)).latestSign).toBe(null);
    test.proxy.restore();
    await expectSettles(guest, id);
  });

  it("before TAKEN has arrived: the dest runs, the source stands still until it hears so", async () => {
    const guest = await test.boot();
    const id = await untilOnTheWay(guest, "taken");
    test.proxy.cut();
    await guest.inPhase(id, "in-doubt");
    await expect.poll(async () => (await guest.atDest()).state).toBe("running");
    await expectSilentAtSource(guest);
    expect(await guest.atSource()).toMatchObject({ state: "in-doubt" });
    test.proxy.restore();
    await expectSettles(guest, id);
  });

  it("before COMPLETE has arrived: the source asks again and its QEMU goes", async () => {
    const guest = await test.boot();
    const id = await untilOnTheWay(guest, "complete");
    test.proxy.cut();
    await expectSilentAtSource(guest);
    test.proxy.restore();
    await expectArrives(guest, id);
  });

  it("only for a moment: it settles by itself", async () => {
    const guest = await test.boot();
    const id = await untilOnTheWay(guest, "taken");
    test.proxy.cut();
    test.proxy.restore();
    await expectSettles(guest, id);
  });

  it("again and again: each time it is asked anew", async () => {
    const guest = await test.boot();
    const id = await untilOnTheWay(guest, "token");
    for (let round = 0; round < 3; round++) {
      const resumed = test.proxy.seen(controlOf("resume"));
      test.proxy.cutOnce();
      await resumed;
    }
    test.proxy.restore();
    await expectSettles(guest, id);
  });

  it("without a word from the network: heartbeats find out, and it settles", async () => {
    const guest = await test.boot();
    const id = await untilOnTheWay(guest, "token");
    test.proxy.block();
    await guest.inPhase(id, "in-doubt", 20_000);
    await expectSilentAtSource(guest);
    test.proxy.cut();
    test.proxy.restore();
    await expectSettles(guest, id);
  });

  it("because the dest agent stands still for a while: it goes on where it was", async () => {
    const guest = await test.boot();
    const id = await untilOnTheWay(guest, "token");
    test.lab.dest.signal("SIGSTOP");
    try {
      test.proxy.restore();
      await guest.inPhase(id, "in-doubt", 30_000);
      await expectSilentAtSource(guest);
      await pause(2000);
    } finally {
      test.lab.dest.signal("SIGCONT");
    }
    await expectSettles(guest, id);
  });

  it("because the dest agent is killed before TOKEN: its successor takes the guest", async () => {
    const guest = await test.boot();
    const id = await untilOnTheWay(guest, "token");
    await test.lab.dest.kill();
    test.proxy.restore();
    await guest.inPhase(id, "in-doubt", 30_000);
    await expectSilentAtSource(guest);
    await test.lab.startDest();
    await expectTaken(guest, id);
  });

  it("because the dest agent is killed before TAKEN: its successor says so", async () => {
    const guest = await test.boot();
    const id = await untilOnTheWay(guest, "taken");
    await test.lab.dest.kill();
    test.proxy.restore();
    await expectSilentAtSource(guest);
    await test.lab.startDest();
    await expectTaken(guest, id);
  });

  it("because the dest agent is stopped while QEMU does not follow cont: its successor sees to it", async () => {
    const { lab } = test;
    const guest = await test.boot();
    const id = await untilOnTheWay(guest, "token");
    const { pid } = await guest.atDest();
    process.kill(pid!, "SIGSTOP");
    try {
      test.proxy.restore();
      await expect.poll(() => lab.dest.logText, { timeout: 10_000 }).toContain('"record":"taken"');
      const sinceMs = performance.now();
      expect(await lab.dest.stop()).toBe(0);
      expect(performance.now() - sinceMs).toBeLessThan(STOPPED_MS_MAX);
    } finally {
      process.kill(pid!, "SIGCONT");
    }
    await lab.startDest();
    await expectTaken(guest, id);
  });

  it("because the source agent is killed before TOKEN: its successor asks again", async () => {
    const guest = await test.boot();
    const id = await untilOnTheWay(guest, "token");
    await test.lab.source.kill();
    test.proxy.restore();
    await test.lab.startSource();
    await expectTaken(guest, id);
  });

  it("because the source agent is killed before TAKEN: its guest never runs again, the dest's does", async () => {
    const guest = await test.boot();
    const id = await untilOnTheWay(guest, "taken");
    await test.lab.source.kill();
    test.proxy.restore();
    await test.lab.startSource();
    await expectTaken(guest, id);
    await expect(guest.migrate()).rejects.toSatisfy(
      (error) => error instanceof ApiProblem && error.code === "guest-not-running",
    );
  });

  it("because the source agent is killed before PREPARED: its successor keeps the guest", async () => {
    const guest = await test.boot();
    const id = await untilOnTheWay(guest, "prepared");
    await test.lab.source.kill();
    test.proxy.restore();
    await test.lab.startSource();
    const migration = await test.lab.source.api.wait(id, 20_000);
    expect(migration).toMatchObject({ phase: "failed", error: { code: "agent-stopped" } });
    await expectWorksAtSource(guest, performance.now());
    await expectNothingAtDest(guest);
    await expectMoves(guest);
  });

  it("because both agents are killed before TOKEN: their successors settle it", async () => {
    const guest = await test.boot();
    const id = await untilOnTheWay(guest, "token");
    await Promise.all([test.lab.source.kill(), test.lab.dest.kill()]);
    test.proxy.restore();
    await test.lab.startDest();
    await test.lab.startSource();
    await expectTaken(guest, id);
  });

  it("because the dest's QEMU is killed before TOKEN: the dest refuses, and the guest comes back", async () => {
    const guest = await test.boot();
    const id = await untilOnTheWay(guest, "token");
    process.kill((await guest.atDest()).pid!, "SIGKILL");
    test.proxy.restore();
    const migration = await test.lab.source.api.wait(id, 20_000);
    expect(migration).toMatchObject({ phase: "failed", error: { code: "dest-qemu-died" } });
    await expectWorksAtSource(guest, performance.now());
    await expectNothingAtDest(guest);
    await expectMoves(guest);
  });

  it("because agent and QEMU of the dest are killed before TOKEN: the guest comes back", async () => {
    const guest = await test.boot();
    const id = await untilOnTheWay(guest, "token");
    const { pid } = await guest.atDest();
    await test.lab.dest.kill();
    process.kill(pid!, "SIGKILL");
    test.proxy.restore();
    await test.lab.startDest();
    const migration = await test.lab.source.api.wait(id, 20_000);
    expect(migration).toMatchObject({ phase: "failed", error: { code: "dest-qemu-died" } });
    await expectWorksAtSource(guest, performance.now());
    await expectNothingAtDest(guest);
    await expectMoves(guest);
  });
});
