import { mkdtempSync } from "node:fs";
import { readdir, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, afterEach, describe, expect, it } from "vitest";
import { controlOf } from "@vmferry/testkit";
import { expectMoves } from "../expect-guest.ts";
import type { MovingGuest } from "../moving-guest.ts";
import { RESTLESS_GUEST, RESTLESS_LINK } from "../restless-guest.ts";
import { useLab, useProxiedLab } from "../test-lab.ts";

const WAIT_MS = 60_000;
const OPTIONS = { mode: "post-copy", fallback: "shared-filesystem", limits: RESTLESS_LINK };

describe("memory that follows by way of a share", () => {
  const shared = mkdtempSync(join(tmpdir(), "vmferry-shared-"));
  const flags = ["--shared-dir", shared];
  const test = useProxiedLab({ source: { flags }, dest: { flags } });
  const pagesDir = join(shared, "vmferry-pages");
  afterEach(async () => {
    // A test that failed half-way leaves its agent dead.
    if (!(await test.lab.dest.api.guests().catch(() => null))) await test.lab.startDest();
    if (!(await test.lab.source.api.guests().catch(() => null))) await test.lab.startSource();
    await rm(pagesDir, { recursive: true, force: true });
  });
  afterAll(async () => {
    await rm(shared, { recursive: true });
  });

  /** The dest has taken the guest, and lacks much of its memory; the source does not know yet. */
  const cutForGood = async (): Promise<{ guest: MovingGuest; id: string }> => {
    const guest = await test.boot(RESTLESS_GUEST);
    const taken = test.proxy.hold(controlOf("taken"));
    const id = await guest.migrate(OPTIONS);
    await taken;
    test.proxy.cut();
    return { guest, id };
  };

  const expectWholeAtDest = async (guest: MovingGuest, id: string): Promise<void> => {
    expect(await test.lab.dest.api.wait(id, WAIT_MS)).toMatchObject({ phase: "completed" });
    expect((await guest.verifyAtDest()).findings).toEqual([]);
    expect(await guest.atDest()).toMatchObject({ state: "running" });
  };

  const expectCompleted = async (id: string): Promise<void> => {
    expect(await test.lab.source.api.wait(id, WAIT_MS)).toMatchObject({ phase: "completed" });
    const isLeft = async (): Promise<boolean> =>
      (await readdir(pagesDir)).some((name) => name.startsWith(id));
    await expect.poll(isLeft, { timeout: 10_000 }).toBe(false);
  };

  it("leaves nothing on the share when everything is there", async () => {
    const guest = await test.boot(RESTLESS_GUEST);
    const { phases } = await expectMoves(guest, OPTIONS);
    expect(phases.map(({ phase }) => phase)).toContain("post-copy");
    await expect.poll(() => readdir(pagesDir), { timeout: 10_000 }).toEqual([]);
  });

  it("what stayed there all the same goes when the dest agent starts again", async () => {
    const guest = await test.boot(RESTLESS_GUEST);
    const { id } = await expectMoves(guest, OPTIONS);
    await expect.poll(() => readdir(pagesDir), { timeout: 10_000 }).toEqual([]);
    const { epoch } = await guest.atDest();
    for (const name of [`${id}.${epoch}.pages`, `${id}.${epoch + 1}.pages`, "other.1.pages"]) {
      await writeFile(join(pagesDir, name), "");
    }
    await test.lab.dest.kill();
    await test.lab.startDest();
    const others = [`${id}.${epoch + 1}.pages`, "other.1.pages"].sort();
    const left = async (): Promise<string[]> => (await readdir(pagesDir)).sort();
    await expect.poll(left, { timeout: 10_000 }).toEqual(others);
  });

  it("arrives, all of it, although the link is cut for good right after the hand-over", async () => {
    const { guest, id } = await cutForGood();
    expect(await test.lab.dest.api.migration(id)).toMatchObject({ phase: "post-copy" });
    await expectWholeAtDest(guest, id);
    test.proxy.restore();
    await expectCompleted(id);
  });

  it("arrives when the source's host is lost, too, once all of it is on the share", async () => {
    const { guest, id } = await cutForGood();
    // Nobody takes anything from the file before it is whole; then its writer is gone.
    await test.lab.dest.kill();
    const onShare = async (): Promise<string | null> =>
      (await test.lab.source.api.migration(id)).fallback;
    await expect.poll(onShare, { timeout: 30_000 }).toBe("complete");
    const qemus = guest.qemus("source");
    await test.lab.source.kill();
    for (const pid of qemus) process.kill(pid, "SIGKILL");
    await test.lab.startDest();
    await expectWholeAtDest(guest, id);
    await test.lab.startSource();
    test.proxy.restore();
    await expectCompleted(id);
  });

  it("goes on into a new file when the source agent is killed while it writes", async () => {
    const { guest, id } = await cutForGood();
    await test.lab.source.kill();
    await test.lab.startSource();
    await expectWholeAtDest(guest, id);
    test.proxy.restore();
    await expectCompleted(id);
  });

  it("comes by the network alone where the share takes nothing, with a warning", async () => {
    await writeFile(pagesDir, "not a directory");
    const guest = await test.boot(RESTLESS_GUEST);
    await expectMoves(guest, OPTIONS);
    expect(test.lab.source.logText).toContain("page-file-failed");
  });
});

describe("a dest that does not see the source's share", () => {
  const shared = mkdtempSync(join(tmpdir(), "vmferry-shared-"));
  const test = useLab(() => ({ source: { flags: ["--shared-dir", shared] } }));
  afterAll(async () => {
    await rm(shared, { recursive: true });
  });

  it("is told from one that does, before anything of the guest is touched", async () => {
    const guest = await test.boot();
    const error: unknown = await guest.migrate(OPTIONS).catch((thrown: unknown) => thrown);
    expect(error).toMatchObject({
      detail: { code: "preflight-failed", problem: { errors: [{ field: "fallback" }] } },
    });
    expect((error as Error).message).toContain("shared directory");
    await expectMoves(guest);
  });
});
