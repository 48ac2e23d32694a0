import { afterEach, beforeEach, describe, expect, test } from "vitest";
import { limits, type ControlMessage } from "@vmferry/protocol";
import type { ScriptedConnection } from "../adapters/scripted-dest.ts";
import { about, answer, lossOf, PeerLinkBench, running, session } from "./peer-link-bench.ts";

let bench: PeerLinkBench;

beforeEach(async () => {
  bench = await PeerLinkBench.open();
});

afterEach(async () => {
  await bench.dest.close();
});

describe("a link that breaks", () => {
  const frame = (text: string): Buffer => Buffer.from(text);
  const credit: ControlMessage = { kind: "credit", bytes: 5 };

  test("goes on over another control connection, which repeats what did not come", async () => {
    const link = await bench.open();
    const kinds: string[] = [];
    link.control.listen(({ kind }) => kinds.push(kind));
    bench.control().send(credit);
    await expect.poll(() => kinds).toEqual(["credit"]);
    bench.control().socket.terminate();
    await bench.inTime(() => !link.whole);
    link.send(running);
    await bench.inTime(() => link.whole);
    await expect.poll(() => bench.seen).toEqual(["hello", "offer", "hello", "resume", "running"]);
    bench.control().send(running);
    await expect.poll(() => kinds).toEqual(["credit", "running"]);
    link.close();
  });

  test("proves the session, and says what has come of the dest's messages", async () => {
    const link = await bench.open();
    link.control.listen(() => undefined);
    bench.control().send(credit);
    bench.control().send(credit);
    await answeredPing(bench.control());
    const resumes: ControlMessage[] = [];
    bench.onControl = (message) => {
      if (message.kind === "resume") resumes.push(message);
    };
    bench.control().socket.terminate();
    await bench.inTime(() => resumes.length > 0);
    expect(resumes).toEqual([{ kind: "resume", ...about, session, received: 2 }]);
    link.close();
  });

  test("sends a frame again that the dest does not have, and no other", async () => {
    const link = await bench.open();
    const [lane] = link.bulk;
    for (const text of ["a", "b", "c"]) lane!.send(frame(text), () => undefined);
    const first = bench.bulks()[0]!;
    await expect.poll(() => first.received.length).toBe(4);
    bench.onControl = () => undefined;
    bench.onBulk = answer({ kind: "received", received: 2 });
    first.socket.terminate();
    await bench.inTime(() => bench.bulks().length === 4);
    const again = bench.bulks()[3]!;
    expect(await again.next()).toMatchObject({ kind: "bulk-hello", index: 0, session });
    expect((await again.nextBytes()).toString()).toBe("c");
    expect(lane!.resentBytes).toBe(1);
    link.close();
  });

  test("dials every connection anew when the control connection is lost", async () => {
    const link = await bench.open();
    bench.control().socket.terminate();
    await bench.inTime(() => bench.dest.connections.length === 8);
    await bench.inTime(() => link.whole);
    await expect.poll(() => bench.openCount(), { interval: 5 }).toBe(4);
    link.close();
  });

  test("is lost when the dest does not know the session any more", async () => {
    const link = await bench.open();
    bench.script.resume = answer({
      kind: "reject",
      code: "migration-not-found",
      text: "started anew",
    });
    const lost = lossOf(link);
    bench.control().socket.terminate();
    await bench.inTime(() => bench.seen.includes("resume"));
    expect(await lost).toMatchObject({ code: "peer-lost" });
    expect((await lost).message).toContain("started anew");
    link.close();
  });

  test("is lost when it does not come back in a minute", async () => {
    const link = await bench.open();
    const lost = lossOf(link);
    let isLost = false;
    void lost.then(() => (isLost = true));
    const beginMs = bench.clock.nowMs();
    await bench.dest.close();
    await bench.inTime(() => isLost);
    expect(bench.clock.nowMs() - beginMs).toBeGreaterThan(limits.LINK_LOST_MS_MAX);
    expect(bench.clock.nowMs() - beginMs).toBeLessThan(limits.LINK_LOST_MS_MAX + 5000);
    expect(await lost).toMatchObject({ code: "peer-lost" });
    link.close();
  });

  test("is lost after two seconds when the guest stands still", async () => {
    const link = await bench.open();
    let isLost = false;
    void lossOf(link).then(() => (isLost = true));
    link.guestStandsStill();
    const beginMs = bench.clock.nowMs();
    await bench.dest.close();
    await bench.inTime(() => isLost, 50);
    expect(bench.clock.nowMs() - beginMs).toBeLessThan(limits.LINK_LOST_STUNNED_MS_MAX + 500);
    link.close();
  });

  test("is waited for before the hand-over, and not repaired after it", async () => {
    const link = await bench.open();
    bench.control().socket.terminate();
    await bench.inTime(() => !link.whole);
    let mayHandOver = false;
    void link.handOver().then(() => (mayHandOver = true));
    await Promise.resolve();
    expect(mayHandOver).toBe(false);
    await bench.inTime(() => mayHandOver);
    const count = bench.dest.connections.length;
    bench.control().socket.terminate();
    expect(await link.control.closed).toMatchObject({ code: "peer-lost" });
    bench.clock.advance(10_000);
    expect(bench.dest.connections).toHaveLength(count);
    link.close();
  });
});

/** What was sent on the connection so far has come. */
async function answeredPing({ socket }: ScriptedConnection): Promise<void> {
  const pong = new Promise((resolve) => {
    socket.once("pong", resolve);
  });
  socket.ping();
  await pong;
}
