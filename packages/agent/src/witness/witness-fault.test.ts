import { execFileSync } from "node:child_process";
import { link, mkdir, mkdtemp, readdir, rm, symlink, truncate, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, describe, expect, test, vi } from "vitest";
import { Deferred } from "@vmferry/core";
import type { StunRef } from "@vmferry/protocol";
import { ManualClock } from "../events/manual-clock.ts";
import { DECISION_BYTES_MAX, encodeDecision } from "./decision-codec.ts";
import { errnoError } from "./errno-error.ts";
import { SharedFiles } from "./shared-files.ts";
import { Witness } from "./witness.ts";

const stun: StunRef = { migrationId: "m1", epoch: 8, generation: 1 };
const DECISION = encodeDecision({ decision: "taken", ...stun, incarnation: "d1" });
const damaged = { code: "witness-damaged" };
const unreachable = { code: "witness-unreachable" };
const notUsable = { code: "witness-not-usable" };

let sharedDir: string;
let directory: string;
let path: string;
let files: SharedFiles;
let clock: ManualClock;
let witness: Witness;

beforeEach(async () => {
  sharedDir = await mkdtemp(join(tmpdir(), "vmferry-shared-"));
  directory = join(sharedDir, "vmferry-witness");
  path = join(directory, "m1.8.1.decision");
  files = new SharedFiles();
  clock = new ManualClock();
  witness = await Witness.open(sharedDir, { files, clock });
  await witness.prove("m1");
});
afterEach(() => rm(sharedDir, { recursive: true }));

/** The other side decides, as if it did so on its own host. */
async function otherDecides(): Promise<void> {
  const other = await Witness.open(sharedDir);
  await other.decide(stun, "revoked", "s1");
}

describe("a link", () => {
  test.each(["EEXIST", "EIO", "ETIMEDOUT"] as const)(
    "that was made counts, although NFS tells of %s",
    async (code) => {
      vi.spyOn(files, "link").mockImplementationOnce(async (from, to) => {
        await link(from, to);
        throw errnoError(code);
      });
      const read = vi.spyOn(files, "read");
      expect(await witness.decide(stun, "taken", "d1")).toBe("taken");
      expect(read).not.toHaveBeenCalled();
      expect(await witness.decide(stun, "revoked", "s1")).toBe("taken");
    },
  );

  test("that was not made does not count, although NFS tells of success", async () => {
    vi.spyOn(files, "link").mockResolvedValue();
    await expect(witness.decide(stun, "taken", "d1")).rejects.toMatchObject(notUsable);
    expect(await witness.look(stun)).toBeNull();
    await otherDecides();
    expect(await witness.decide(stun, "taken", "d1")).toBe("revoked");
  });

  test("whose count of names is not believed is looked up", async () => {
    const inspect = files.inspect.bind(files);
    vi.spyOn(files, "inspect").mockImplementation(async (one) => {
      const facts = await inspect(one);
      return facts === null ? null : { ...facts, linkCount: 1 };
    });
    const read = vi.spyOn(files, "read");
    expect(await witness.decide(stun, "taken", "d1")).toBe("taken");
    expect(read).toHaveBeenCalledExactlyOnceWith(path, DECISION_BYTES_MAX);
    expect(await witness.decide(stun, "revoked", "s1")).toBe("taken");
  });

  test("that somebody else made to the new file is no victory", async () => {
    await otherDecides();
    vi.spyOn(files, "link").mockImplementationOnce(async (from) => {
      await link(from, join(sharedDir, "backup"));
      throw errnoError("EEXIST");
    });
    expect(await witness.decide(stun, "taken", "d1")).toBe("revoked");
  });

  test("is made when the decision is durable, and believed when its name is", async () => {
    const steps: string[] = [];
    for (const method of ["create", "link", "read", "syncDirectory"] as const) {
      const call = files[method].bind(files) as (...of: unknown[]) => Promise<never>;
      vi.spyOn(files, method).mockImplementation(async (...of: unknown[]) => {
        steps.push(method);
        return await call(...of);
      });
    }
    await witness.decide(stun, "taken", "d1");
    expect(steps.splice(0)).toEqual(["create", "link", "syncDirectory"]);
    // Of what another host made, too.
    await witness.look(stun);
    expect(steps).toEqual(["syncDirectory", "read", "syncDirectory"]);
  });

  test("whose name may not be durable is no success", async () => {
    vi.spyOn(files, "syncDirectory").mockRejectedValueOnce(errnoError("EDQUOT"));
    await expect(witness.decide(stun, "taken", "d1")).rejects.toMatchObject(notUsable);
    expect(await witness.decide(stun, "revoked", "s1")).toBe("taken");
  });
});

describe("a file that is no decision of the stun", () => {
  async function expectRefused(): Promise<void> {
    await expect(witness.look(stun)).rejects.toMatchObject({ detail: { ...damaged, path } });
    for (const decision of ["taken", "revoked"] as const) {
      await expect(witness.decide(stun, decision, "x")).rejects.toMatchObject(damaged);
    }
  }

  test("is refused when it is torn, wherever that is", async () => {
    for (let length = 0; length < DECISION.length; length += 7) {
      await writeFile(path, DECISION.subarray(0, length));
      await expectRefused();
    }
  });

  test.each([
    [
      "about another generation",
      JSON.stringify({ version: 1, decision: "taken", ...stun, generation: 2, incarnation: "d1" }),
    ],
    [
      "about another migration",
      JSON.stringify({
        version: 1,
        decision: "taken",
        ...stun,
        migrationId: "m2",
        incarnation: "d1",
      }),
    ],
    [
      "of a newer agent",
      JSON.stringify({ version: 2, decision: "taken", ...stun, incarnation: "d1" }),
    ],
    ["of another program", "taken\n"],
    ["too long", DECISION.toString() + " ".repeat(DECISION_BYTES_MAX)],
  ])("is refused when it is %s", async (_what, content) => {
    await writeFile(path, content);
    await expectRefused();
  });

  test("is refused, and not read to its end, when it is huge", async () => {
    await writeFile(path, DECISION);
    await truncate(path, 2 ** 40);
    await expectRefused();
  });

  test("is refused when it is no file, and not opened", async () => {
    const elsewhere = join(sharedDir, "elsewhere");
    await writeFile(elsewhere, DECISION);
    const makers = [
      () => symlink(elsewhere, path),
      () => mkdir(path),
      () => execFileSync("mkfifo", [path]),
    ];
    for (const make of makers) {
      await make();
      await expectRefused();
      await rm(path, { recursive: true });
    }
  });

  test("is refused as a proof as well", async () => {
    const proof = await witness.prove("m1");
    await writeFile(join(directory, "m1.proof"), `${proof}0`);
    await expect(witness.sees("m1", proof)).rejects.toMatchObject(damaged);
    await writeFile(join(directory, "m1.proof"), proof.slice(1));
    expect(await witness.sees("m1", proof)).toBe(false);
  });
});

describe("what a crash left", () => {
  const leftover = "70b2bbb6-030f-480c-9b0c-eb34712b67a1.tmp";

  test("decides nothing when it has no decision's name", async () => {
    await writeFile(join(directory, leftover), DECISION);
    expect(await witness.look(stun)).toBeNull();
    expect(await witness.decide(stun, "revoked", "s1")).toBe("revoked");
  });

  test("stands when it has one, also with its first name beside it", async () => {
    await writeFile(join(directory, leftover), DECISION);
    await link(join(directory, leftover), path);
    expect(await witness.decide(stun, "revoked", "s1")).toBe("taken");
    expect(await witness.decide(stun, "taken", "d1")).toBe("taken");
    expect((await readdir(directory)).sort()).toEqual([leftover, "m1.8.1.decision", "m1.proof"]);
  });

  test("is left also where a new file cannot be removed, and that is no failure", async () => {
    vi.spyOn(files, "remove").mockRejectedValue(errnoError("EIO"));
    expect(await witness.decide(stun, "taken", "d1")).toBe("taken");
    expect((await readdir(directory)).length).toBe(3);
  });
});

describe("a file system that hangs", () => {
  /** Resolves when the next call of it hangs; the call goes on when the result is resolved. */
  function hang(method: "create" | "link" | "read"): { hangs: Promise<void>; goesOn: Deferred } {
    const [hangs, goesOn] = [new Deferred(), new Deferred()];
    const call = files[method].bind(files) as (...of: unknown[]) => Promise<never>;
    vi.spyOn(files, method).mockImplementationOnce(async (...of: unknown[]) => {
      hangs.resolve();
      await goesOn.promise;
      return await call(...of);
    });
    return { hangs: hangs.promise, goesOn };
  }

  test("makes a decision late, which may come to stand all the same", async () => {
    const { hangs, goesOn } = hang("link");
    const late = witness.decide(stun, "taken", "d1");
    await hangs;
    clock.advance(4999);
    expect(clock.timerCount).toBe(1);
    clock.advance(1);
    await expect(late).rejects.toMatchObject(unreachable);
    goesOn.resolve();
    expect(await witness.decide(stun, "revoked", "s1")).toBe("taken");
    expect(clock.timerCount).toBe(0);
  });

  test("is not told to decide any more when that is late before", async () => {
    const { hangs, goesOn } = hang("create");
    const late = witness.decide(stun, "taken", "d1", { timeoutMs: 10 });
    await hangs;
    clock.advance(10);
    await expect(late).rejects.toMatchObject(unreachable);
    goesOn.resolve();
    expect(await witness.look(stun)).toBeNull();
    expect(await readdir(directory)).toEqual(["m1.proof"]);
  });

  test("makes every other call late in its time, and holds one thread only", async () => {
    const { hangs, goesOn } = hang("read");
    const first = witness.look(stun);
    await hangs;
    const create = vi.spyOn(files, "create");
    const sync = vi.spyOn(files, "syncDirectory");
    const calls = Promise.allSettled([
      witness.decide(stun, "taken", "d1"),
      witness.look(stun),
      witness.prove("m2"),
      witness.sees("m1", "0".repeat(64)),
      witness.forget("m1"),
      witness.clean(),
      first,
    ]);
    clock.advance(5000);
    for (const result of await calls) {
      expect(result).toMatchObject({ reason: { ...unreachable } });
    }
    expect(create).not.toHaveBeenCalled();
    expect(sync).not.toHaveBeenCalled();
    goesOn.resolve();
    expect(await witness.decide(stun, "taken", "d1")).toBe("taken");
  });

  test("does not keep a witness that is opened from an answer", async () => {
    vi.spyOn(files, "makeDirectory").mockReturnValueOnce(new Promise(() => undefined));
    const opened = Witness.open(sharedDir, { files, clock, timeoutMs: 10 });
    clock.advance(10);
    await expect(opened).rejects.toMatchObject(unreachable);
  });
});

describe("an error of the file system", () => {
  test.each(["ENOSPC", "EACCES", "EROFS"] as const)(
    "says that the witness is not usable: %s",
    async (code) => {
      vi.spyOn(files, "create").mockRejectedValue(errnoError(code));
      await expect(witness.decide(stun, "taken", "d1")).rejects.toMatchObject(notUsable);
      await expect(witness.decide(stun, "taken", "d1")).rejects.toThrow(code);
      await expect(witness.prove("m1")).rejects.toMatchObject(notUsable);
      await expect(Witness.open(sharedDir, { files })).rejects.toMatchObject(notUsable);
      // What stands can be read nevertheless.
      await otherDecides();
      expect(await witness.decide(stun, "taken", "d1")).toBe("revoked");
    },
  );

  test.each(["EIO", "ESTALE", "ETIMEDOUT"] as const)(
    "says that the witness cannot be reached: %s",
    async (code) => {
      vi.spyOn(files, "inspect").mockRejectedValueOnce(errnoError(code));
      await expect(witness.decide(stun, "taken", "d1")).rejects.toMatchObject(unreachable);
      vi.spyOn(files, "read").mockRejectedValueOnce(errnoError(code));
      await expect(witness.look(stun)).rejects.toMatchObject(unreachable);
    },
  );
});
