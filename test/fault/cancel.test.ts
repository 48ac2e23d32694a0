import { describe, expect, it } from "vitest";
import { ApiProblem, controlOf } from "@vmferry/testkit";
import {
  expectArrives,
  expectDestSays,
  expectKept,
  expectMoves,
  expectNothingAtDest,
  expectWorksAtSource,
} from "../expect-guest.ts";
import { LONG_PRE_COPY, LONG_STUN } from "../held-open.ts";
import { useProxiedLab } from "../test-lab.ts";

const CANCELLED_MS_MAX = 2000;

describe("a cancelled migration", () => {
  const test = useProxiedLab();

  const cancel = (id: string): Promise<unknown> => test.lab.source.api.cancel(id);
  const codeOf = (request: Promise<unknown>): Promise<unknown> =>
    request.then(
      () => "accepted",
      (error: unknown) => (error instanceof ApiProblem ? error.detail : error),
    );

  it("leaves the guest at the source when it is cancelled before the dest has accepted", async () => {
    const guest = await test.boot();
    const held = test.proxy.hold(controlOf("accept"));
    const id = await guest.migrate();
    await held;
    expect(await test.lab.source.api.migration(id)).toMatchObject({ phase: "preparing" });
    const sinceMs = performance.now();
    await cancel(id);
    await test.lab.source.api.wait(id, 10_000);
    // The acceptance arrives when nobody waits for it any more.
    test.proxy.restore();
    await expectKept(guest, id, { code: "cancelled", during: "preparing", sinceMs });
    await expectMoves(guest);
  });

  it("frees the dest at once, though the answer of the dest is still under way", async () => {
    const guest = await test.boot();
    const held = test.proxy.hold(controlOf("accept"));
    const id = await guest.migrate();
    await held;
    const sinceMs = performance.now();
    await cancel(id);
    await expectKept(guest, id, { code: "cancelled", during: "preparing", sinceMs });
    expect(performance.now() - sinceMs).toBeLessThan(5000);
  });

  it("leaves the guest at the source when it is cancelled in pre-copy", async () => {
    const guest = await test.boot();
    const id = await guest.migrate(LONG_PRE_COPY);
    await guest.until(id, ({ ram }) => ram.sentBytes > 4 * 1024 * 1024);
    const sinceMs = performance.now();
    await cancel(id);
    await test.lab.source.api.wait(id, 10_000);
    expect(performance.now() - sinceMs).toBeLessThan(CANCELLED_MS_MAX);
    await expectKept(guest, id, { code: "cancelled", during: "pre-copy", sinceMs });
    await expectDestSays(guest, id, "cancelled");
    await expectMoves(guest);
  });

  it("lets the guest run on at the source when it is cancelled amid the stun", async () => {
    const guest = await test.boot();
    const id = await guest.migrate(LONG_STUN);
    await guest.inPhase(id, "stunned");
    const sinceMs = performance.now();
    await cancel(id);
    await expectKept(guest, id, { code: "cancelled", during: "stunned", sinceMs });
    await expectDestSays(guest, id, "cancelled");
    await expectMoves(guest);
  });

  it("lets the guest run on at the source when the dest has loaded everything", async () => {
    const guest = await test.boot();
    const held = test.proxy.hold(controlOf("prepared"));
    const id = await guest.migrate();
    await held;
    expect(await test.lab.source.api.migration(id)).toMatchObject({ phase: "device-state" });
    const sinceMs = performance.now();
    await cancel(id);
    await expectKept(guest, id, { code: "cancelled", during: "device-state", sinceMs });
    test.proxy.restore();
    await expectDestSays(guest, id, "cancelled");
    await expectMoves(guest);
  });

  it("cannot be cancelled once the guest is handed over, and completes", async () => {
    const guest = await test.boot();
    const held = test.proxy.hold(controlOf("token"));
    const id = await guest.migrate();
    await held;
    expect(await test.lab.source.api.migration(id)).toMatchObject({
      phase: "handing-over",
      mayCancel: false,
    });
    expect(await codeOf(cancel(id))).toMatchObject({ code: "past-hand-over", status: 409 });
    test.proxy.restore();
    await expectArrives(guest, id);
    expect(await codeOf(cancel(id))).toMatchObject({ code: "past-hand-over", status: 409 });
  });

  it("answers a second cancel like the first, during and after its end", async () => {
    const guest = await test.boot();
    const id = await guest.migrate(LONG_PRE_COPY);
    await guest.inPhase(id, "pre-copy");
    const sinceMs = performance.now();
    const answers = await Promise.all([codeOf(cancel(id)), codeOf(cancel(id))]);
    await expectKept(guest, id, { code: "cancelled", during: "pre-copy", sinceMs });
    expect([...answers, await codeOf(cancel(id))]).toEqual(["accepted", "accepted", "accepted"]);
    await expectWorksAtSource(guest, sinceMs);
    await expectNothingAtDest(guest);
  });

  it("is refused by the dest, which says who steers migrations", async () => {
    const guest = await test.boot();
    const id = await guest.migrate(LONG_PRE_COPY);
    await guest.inPhase(id, "pre-copy");
    expect(await codeOf(test.lab.dest.api.cancel(id))).toMatchObject({
      code: "not-on-this-agent",
      status: 409,
    });
    const sinceMs = performance.now();
    await cancel(id);
    await expectKept(guest, id, { code: "cancelled", during: "pre-copy", sinceMs });
  });
});
