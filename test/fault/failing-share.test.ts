import { execFileSync } from "node:child_process";
import { existsSync, mkdirSync, mkdtempSync } from "node:fs";
import { open, readdir, rm, stat } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, afterEach, beforeAll, describe, expect, it } from "vitest";
import { pageFilePlace, PageFileWriter } from "../../packages/agent/src/index.ts";
import { controlOf, EventFollower, type AgentProcess } from "@vmferry/testkit";
import { expectArrives } from "../expect-guest.ts";
import { compileFailingShare, FailingShare } from "../failing-share.ts";
import type { MovingGuest } from "../moving-guest.ts";
import { migrateByPostcopy, RESTLESS_GUEST } from "../restless-guest.ts";
import { useProxiedLab } from "../test-lab.ts";

const MIB = 1024 * 1024;
const WAIT_MS = 60_000;
/** The writer's limit is 15 s. */
const WARNING_MS_MAX = 30_000;
const OTHER_GUEST = {
  key: {
    key: "5f".repeat(32),
    guestName: "other",
    uuid: "6f1d3c2e-8a54-4b0f-9c7d-2e5a1b3c4d5e",
  },
  blocks: [{ name: "pc.ram", lengthBytes: 4096 }],
};
const MAY_MOUNT = process.getuid?.() === 0 && existsSync("/dev/fuse");

function migrate(guest: MovingGuest, mibPerSecond = 6): Promise<string> {
  return migrateByPostcopy(guest, mibPerSecond * MIB, { fallback: "shared-filesystem" });
}

/** That the agent says of the migration, by this code. */
async function expectWarning(agent: AgentProcess, id: string, code: string): Promise<void> {
  const follower = await EventFollower.open(agent.api.url, `/v1/migrations/${id}/events`);
  try {
    const isWarning = ({ type }: { readonly type: string }): boolean =>
      type === "migration.warning";
    const warning = await follower.waitFor(isWarning, { timeoutMs: WARNING_MS_MAX });
    expect(warning).toMatchObject({ warning: { code } });
  } finally {
    follower.close();
  }
}

/** What was to be seen has been: the rest comes as fast as it can. */
async function expectArrivesNow(guest: MovingGuest, id: string): Promise<void> {
  await guest.limitBandwidth(id, null);
  await expectArrives(guest, id);
}

// Mounting is for root alone; in CI it is root.
describe.runIf(MAY_MOUNT)("a share that both hosts mount, and that", () => {
  const directory = mkdtempSync(join(tmpdir(), "vmferry-share-"));
  const program = join(directory, "failing-share");
  const shared = join(directory, "shared");
  mkdirSync(shared);
  const sourceShare = new FailingShare(program, shared, join(directory, "source"));
  const destShare = new FailingShare(program, shared, join(directory, "dest"));
  const pagesDir = join(shared, "vmferry-pages");
  beforeAll(async () => {
    await compileFailingShare(program);
    await sourceShare.mount();
    await destShare.mount();
  });
  const test = useProxiedLab({
    source: { flags: ["--shared-dir", sourceShare.path] },
    dest: { flags: ["--shared-dir", destShare.path] },
  });
  afterEach(async () => {
    await sourceShare.heal();
    await destShare.heal();
    await rm(pagesDir, { recursive: true, force: true });
  });
  afterAll(async () => {
    await sourceShare.close();
    await destShare.close();
    await rm(directory, { recursive: true });
  });

  const pathOf = async (id: string): Promise<string | null> => {
    const names = await readdir(pagesDir).catch(() => []);
    const name = names.find((each) => each.startsWith(id));
    return name === undefined ? null : join(pagesDir, name);
  };

  /** Some of it is written. */
  const begunFile = async (id: string): Promise<string> => {
    const hasBegun = async (): Promise<boolean> => {
      const path = await pathOf(id);
      return path !== null && (await stat(path)).size > MIB;
    };
    await expect.poll(hasBegun, { timeout: WAIT_MS, interval: 10 }).toBe(true);
    return (await pathOf(id))!;
  };

  const expectAllOnShare = async (id: string): Promise<void> => {
    const onShare = async (): Promise<string | null> =>
      (await test.lab.source.api.migration(id)).fallback;
    await expect.poll(onShare, { timeout: WAIT_MS, interval: 50 }).toBe("complete");
  };

  /** The dest looks at nothing of the file before it is whole, and as `change` has made it. */
  const migrateWithChanged = async (
    change: (path: string) => Promise<void>,
  ): Promise<{ readonly guest: MovingGuest; readonly id: string }> => {
    const guest = await test.boot(RESTLESS_GUEST);
    const id = await migrate(guest);
    await guest.inPhase(id, "post-copy");
    destShare.hang();
    // Most of it is still missing at the dest when the share goes on.
    await guest.limitBandwidth(id, MIB / 4);
    await expectAllOnShare(id);
    await change((await pathOf(id))!);
    destShare.goOn();
    return { guest, id };
  };

  it.each(["write", "fsync"] as const)(
    "fails the source at %s is told, and the network goes on",
    async (operation) => {
      const guest = await test.boot(RESTLESS_GUEST);
      const id = await migrate(guest);
      await begunFile(id);
      await sourceShare.fail(operation, "EIO");
      await expectWarning(test.lab.source, id, "page-file-failed");
      await expectArrivesNow(guest, id);
    },
  );

  it("hangs for the source is told, and the network goes on", async () => {
    const guest = await test.boot(RESTLESS_GUEST);
    const id = await migrate(guest, 2);
    await begunFile(id);
    sourceShare.hang();
    await expectWarning(test.lab.source, id, "page-file-unreachable");
    await expectArrivesNow(guest, id);
  });

  it("fails the dest at read is told, and the network goes on", async () => {
    const guest = await test.boot(RESTLESS_GUEST);
    await destShare.fail("read", "EIO");
    const id = await migrate(guest);
    await guest.inPhase(id, "post-copy");
    await expectWarning(test.lab.dest, id, "page-file-failed");
    await expectArrivesNow(guest, id);
  });

  it("hangs for the dest is told, and the network goes on", async () => {
    const guest = await test.boot(RESTLESS_GUEST);
    const id = await migrate(guest);
    await guest.inPhase(id, "post-copy");
    destShare.hang();
    await expectWarning(test.lab.dest, id, "page-file-unreachable");
    await expectArrivesNow(guest, id);
  });

  it("is gone for the dest is told, and the network goes on", async () => {
    const guest = await test.boot(RESTLESS_GUEST);
    const id = await migrate(guest);
    await guest.inPhase(id, "post-copy");
    await destShare.die();
    await expectWarning(test.lab.dest, id, "page-file-unreachable");
    await expectArrivesNow(guest, id);
  });

  it("hangs for a while has the rest for a dest whose link is cut for good", async () => {
    const guest = await test.boot(RESTLESS_GUEST);
    const taken = test.proxy.hold(controlOf("taken"));
    const id = await migrate(guest);
    await taken;
    destShare.hang();
    test.proxy.cut();
    await expectWarning(test.lab.dest, id, "page-file-unreachable");
    destShare.goOn();
    expect(await test.lab.dest.api.wait(id, WAIT_MS)).toMatchObject({ phase: "completed" });
    expect((await guest.verifyAtDest()).findings).toEqual([]);
    test.proxy.restore();
    expect(await test.lab.source.api.wait(id, WAIT_MS)).toMatchObject({ phase: "completed" });
  });

  it("has lost bits of the file is told, and the network goes on", async () => {
    const { guest, id } = await migrateWithChanged(async (path) => {
      const file = await open(path, "r+");
      const byte = Buffer.alloc(1);
      const { size } = await file.stat();
      // In many places: a page that has come over the network is not read.
      for (let at = Math.trunc(size / 2); at < size; at += 64 * 1024) {
        await file.read(byte, 0, 1, at);
        byte[0]! ^= 1;
        await file.write(byte, 0, 1, at);
      }
      await file.close();
    });
    await expectWarning(test.lab.dest, id, "page-file-damaged");
    await expectArrivesNow(guest, id);
  });

  it("has another guest's file is told, and the network goes on", async () => {
    const { guest, id } = await migrateWithChanged(async (path) => {
      await rm(path);
      const about = { migrationId: "m1", epoch: 1 };
      const { subject, secret } = pageFilePlace(shared, about, OTHER_GUEST);
      const writer = await PageFileWriter.create(path, subject, { secret });
      await writer.close({ complete: true });
    });
    await expectWarning(test.lab.dest, id, "page-file-foreign");
    await expectArrivesNow(guest, id);
  });
});

describe.runIf(process.getuid?.() === 0)("a share that", () => {
  const shared = mkdtempSync(join(tmpdir(), "vmferry-full-"));
  beforeAll(() => {
    execFileSync("mount", ["-t", "tmpfs", "-o", "size=8m", "tmpfs", shared]);
  });
  const flags = ["--shared-dir", shared];
  const test = useProxiedLab({ source: { flags }, dest: { flags } });
  afterAll(async () => {
    execFileSync("umount", ["-l", shared]);
    await rm(shared, { recursive: true });
  });

  it("gets full is told, and the network goes on", async () => {
    const guest = await test.boot(RESTLESS_GUEST);
    const id = await migrate(guest);
    await expectWarning(test.lab.source, id, "page-file-full");
    await expectArrivesNow(guest, id);
  });
});
