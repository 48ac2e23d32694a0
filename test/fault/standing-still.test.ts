import { mkdirSync, mkdtempSync, symlinkSync } from "node:fs";
import { rename, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, describe, expect, it } from "vitest";
import { controlOf, type Lab } from "@vmferry/testkit";
import {
  expectArrives,
  expectDestSays,
  expectMoves,
  expectNothingAtDest,
  expectSilentAtSource,
  expectWorksAtSource,
} from "../expect-guest.ts";
import { useHeldQemus } from "../held-qemu.ts";
import type { MovingGuest } from "../moving-guest.ts";
import { migrateByPostcopy, RESTLESS_GUEST } from "../restless-guest.ts";
import { useProxiedLab, type ProxiedTestLab } from "../test-lab.ts";

/** The source waits ten seconds for an answer before it says anything. */
const IN_DOUBT_MS_MAX = 40_000;
/** What is missing at the hand-over takes this link many seconds. */
const SLOW_BYTES_PER_SECOND = 4 * 1024 * 1024;

/** Migrates; the dest gets TOKEN when `meanwhile` is done, over a link that is up all the time. */
async function handOver<T>(
  test: ProxiedTestLab,
  guest: MovingGuest,
  meanwhile: () => Promise<T>,
): Promise<{ readonly id: string; readonly done: T }> {
  const held = test.proxy.hold(controlOf("token"));
  const id = await guest.migrate();
  await held;
  const done = await meanwhile();
  test.proxy.restore();
  return { id, done };
}

async function reasonAt(agent: Lab["source"], id: string): Promise<string> {
  const { phase, error } = await agent.api.migration(id);
  return `${phase}: ${error?.detail ?? ""}`;
}

describe("a hand-over that stands still while its link is up", () => {
  const test = useProxiedLab();
  const hold = useHeldQemus();

  it("because the dest's QEMU hangs is in doubt, and completes when that goes on", async () => {
    const guest = await test.boot();
    const { id, done: qemu } = await handOver(test, guest, async () =>
      hold((await guest.atDest()).pid),
    );
    await guest.inPhase(id, "in-doubt", IN_DOUBT_MS_MAX);
    const reason = await reasonAt(test.lab.source, id);
    expect(reason).toContain("The guest was handed over to dest, which has not answered");
    expect(reason).toContain(`vmferry resolve ${id} source --fenced`);
    expect(await guest.atSource()).toMatchObject({ state: "in-doubt" });
    await expectSilentAtSource(guest);
    const { wire } = await test.lab.source.api.migration(id);
    qemu.goOn();
    const migration = await expectArrives(guest, id);
    expect(migration.wire.reconnects).toBe(wire.reconnects);
  });
});

describe("a hand-over with a witness that stands still while its link is up", () => {
  const directory = mkdtempSync(join(tmpdir(), "vmferry-shared-"));
  const shared = join(directory, "shared");
  /** What the dest has of it: it can be taken away. */
  const mount = join(directory, "dest");
  mkdirSync(shared);
  symlinkSync(shared, mount);
  const test = useProxiedLab({
    source: { flags: ["--shared-dir", shared] },
    dest: { flags: ["--shared-dir", mount] },
  });
  const hold = useHeldQemus();
  afterAll(async () => {
    await rm(directory, { recursive: true });
  });

  it("because the dest's QEMU hangs is the dest's, as the witness says", async () => {
    const guest = await test.boot();
    const { id, done: qemu } = await handOver(test, guest, async () =>
      hold((await guest.atDest()).pid),
    );
    await expect
      .poll(() => reasonAt(test.lab.source, id), { timeout: IN_DOUBT_MS_MAX })
      .toContain("in-doubt: dest has taken the guest, as the witness says");
    await expectSilentAtSource(guest);
    await expect(test.lab.source.api.resolve(id, "source")).rejects.toMatchObject({
      code: "not-in-doubt",
    });
    qemu.goOn();
    await expectArrives(guest, id);
  });

  it("because the dest cannot ask the witness for a while goes on, and tells what still comes", async () => {
    const guest = await test.boot(RESTLESS_GUEST);
    const away = `${mount}.away`;
    const held = test.proxy.hold(controlOf("token"));
    const id = await migrateByPostcopy(guest, SLOW_BYTES_PER_SECOND);
    await held;
    await rename(mount, away);
    test.proxy.restore();
    await expect
      .poll(() => reasonAt(test.lab.dest, id), { timeout: IN_DOUBT_MS_MAX })
      .toContain("in-doubt: The source has handed the guest over");
    await rename(away, mount);
    await guest.inPhase(id, "post-copy");
    const remaining = async (): Promise<number> => {
      const { phase, ram } = await test.lab.dest.api.migration(id);
      expect(phase).toBe("post-copy");
      return ram.remainingBytes!;
    };
    await expect.poll(remaining, { timeout: 5000 }).toBeGreaterThan(0);
    const before = await remaining();
    await expect.poll(remaining, { timeout: 5000 }).toBeLessThan(before);
    await guest.limitBandwidth(id, null);
    await expectArrives(guest, id);
  });

  it("because the dest cannot ask the witness comes back to the source, and is refused there", async () => {
    const guest = await test.boot();
    const away = `${mount}.away`;
    const { id } = await handOver(test, guest, () => rename(mount, away));
    const sinceMs = performance.now();
    try {
      await expect
        .poll(() => reasonAt(test.lab.dest, id), { timeout: IN_DOUBT_MS_MAX })
        .toContain("in-doubt: The source has handed the guest over, and the witness has not said");
      expect(await test.lab.source.api.wait(id, IN_DOUBT_MS_MAX)).toMatchObject({
        phase: "failed",
        error: { code: "settled-by-witness" },
      });
      await expectWorksAtSource(guest, sinceMs, IN_DOUBT_MS_MAX);
    } finally {
      await rename(away, mount);
    }
    await expectDestSays(guest, id, "settled-by-witness");
    await expectNothingAtDest(guest);
    await expectMoves(guest);
  });
});
