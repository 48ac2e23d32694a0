import { chmod, mkdir, mkdtemp, readdir, readFile, rm, stat, symlink } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, describe, expect, test, vi } from "vitest";
import type { StunRef } from "@vmferry/protocol";
import { SharedFiles } from "./shared-files.ts";
import { errnoError } from "./errno-error.ts";
import { Witness } from "./witness.ts";

const stun: StunRef = { migrationId: "m1", epoch: 8, generation: 1 };
const notUsable = { code: "witness-not-usable" };

let sharedDir: string;
let directory: string;
let files: SharedFiles;
let witness: Witness;

beforeEach(async () => {
  sharedDir = await mkdtemp(join(tmpdir(), "vmferry-shared-"));
  directory = join(sharedDir, "vmferry-witness");
  files = new SharedFiles();
  witness = await Witness.open(sharedDir, { files });
  await witness.prove("m1");
});
afterEach(() => rm(sharedDir, { recursive: true }));

describe("what was decided first", () => {
  test.each([
    ["taken", "revoked"],
    ["revoked", "taken"],
  ] as const)("stands for ever: %s before %s", async (first, second) => {
    expect(await witness.look(stun)).toBeNull();
    expect(await witness.decide(stun, first, "a")).toBe(first);
    const other = await Witness.open(sharedDir);
    for (let i = 0; i < 3; i++) {
      expect(await other.decide(stun, second, "b")).toBe(first);
      expect(await other.look(stun)).toBe(first);
    }
  });

  test("is told again to the side that decided it, also in a later life", async () => {
    expect(await witness.decide(stun, "taken", "d1")).toBe("taken");
    expect(await witness.decide(stun, "taken", "d1")).toBe("taken");
    const restarted = await Witness.open(sharedDir);
    expect(await restarted.decide(stun, "taken", "d2")).toBe("taken");
    const path = join(directory, "m1.8.1.decision");
    expect(JSON.parse(await readFile(path, "utf8"))).toMatchObject({ incarnation: "d1" });
  });

  test("is that of one stun, and of no other", async () => {
    await witness.prove("m2");
    const others = [
      { ...stun, generation: 2 },
      { ...stun, epoch: 9 },
      { ...stun, migrationId: "m2" },
    ];
    await witness.decide(stun, "taken", "d1");
    for (const other of others) {
      expect(await witness.look(other)).toBeNull();
      expect(await witness.decide(other, "revoked", "s1")).toBe("revoked");
    }
    expect(await witness.look(stun)).toBe("taken");
  });

  test("is one file, for the agents' user alone", async () => {
    await witness.decide(stun, "revoked", "s1");
    expect((await readdir(directory)).sort()).toEqual(["m1.8.1.decision", "m1.proof"]);
    expect((await stat(join(directory, "m1.8.1.decision"))).mode & 0o777).toBe(0o600);
    expect((await stat(directory)).mode & 0o777).toBe(0o700);
    expect(JSON.parse(await readFile(join(directory, "m1.8.1.decision"), "utf8"))).toEqual({
      version: 1,
      decision: "revoked",
      ...stun,
      incarnation: "s1",
    });
  });

  test("is of a stun that is fit for a file's name, and nothing is written for another", async () => {
    const invariant = { name: "InvariantError" };
    for (const migrationId of ["", "../m1", "a/b", "a.b", "a\n", "a".repeat(65)]) {
      const unfit = { ...stun, migrationId };
      await expect(witness.decide(unfit, "taken", "d1")).rejects.toMatchObject(invariant);
      await expect(witness.look(unfit)).rejects.toMatchObject(invariant);
      await expect(witness.prove(migrationId)).rejects.toMatchObject(invariant);
    }
    for (const epoch of [-1, 1.5, NaN, 2 ** 60]) {
      await expect(witness.decide({ ...stun, epoch }, "taken", "d1")).rejects.toMatchObject(
        invariant,
      );
      await expect(witness.look({ ...stun, epoch })).rejects.toMatchObject(invariant);
    }
    const longest = { ...stun, epoch: Number.MAX_SAFE_INTEGER, generation: 0 };
    expect(await witness.decide(longest, "taken", "d1")).toBe("taken");
  });
});

describe("a witness", () => {
  test("is opened again and again, and leaves nothing beside what it has", async () => {
    await Promise.all(Array.from({ length: 4 }, () => Witness.open(sharedDir)));
    expect(await readdir(directory)).toEqual(["m1.proof"]);
  });

  test("is durable, and so is a proof", async () => {
    const elsewhere = join(sharedDir, "elsewhere");
    await mkdir(elsewhere);
    const sync = vi.spyOn(files, "syncDirectory");
    const opened = await Witness.open(elsewhere, { files });
    expect(sync).toHaveBeenCalledWith(elsewhere);
    sync.mockRejectedValueOnce(errnoError("EIO"));
    await expect(opened.prove("m1")).rejects.toMatchObject({ code: "witness-unreachable" });
  });

  test("is not opened where the shared directory is not there", async () => {
    await expect(Witness.open(join(sharedDir, "missing"))).rejects.toMatchObject(notUsable);
  });

  test("is not opened in what is no directory", async () => {
    const elsewhere = join(sharedDir, "elsewhere");
    await mkdir(elsewhere);
    await symlink(directory, join(elsewhere, "vmferry-witness"));
    await expect(Witness.open(elsewhere)).rejects.toMatchObject(notUsable);
  });

  test("is not opened where others may write, or where the directory is theirs", async () => {
    for (const mode of [0o770, 0o702]) {
      await chmod(directory, mode);
      await expect(Witness.open(sharedDir)).rejects.toThrow("others may write to it");
    }
    await chmod(directory, 0o750);
    const inspect = files.inspect.bind(files);
    vi.spyOn(files, "inspect").mockImplementation(async (path) => {
      const facts = (await inspect(path))!;
      return path === directory ? { ...facts, uid: facts.uid + 1 } : facts;
    });
    await expect(Witness.open(sharedDir, { files })).rejects.toThrow("another user's");
    await Witness.open(sharedDir);
    expect(await readdir(directory)).toEqual(["m1.proof"]);
  });

  test("is not opened where files cannot have two names", async () => {
    vi.spyOn(files, "link").mockRejectedValueOnce(errnoError("EPERM"));
    await expect(Witness.open(sharedDir, { files })).rejects.toMatchObject(notUsable);
    vi.spyOn(files, "link").mockImplementationOnce((path, newPath) =>
      files.create(newPath, Buffer.from(path)),
    );
    await expect(Witness.open(sharedDir, { files })).rejects.toThrow("cannot have two names");
    expect(await readdir(directory)).toEqual(["m1.proof"]);
  });
});

describe("the proof of a migration", () => {
  test("is seen by whoever has the same directory, until it is forgotten", async () => {
    const peer = await Witness.open(sharedDir);
    const proof = await witness.prove("m2");
    expect(proof).toMatch(/^[0-9a-f]{64}$/);
    expect((await stat(join(directory, "m2.proof"))).mode & 0o777).toBe(0o600);
    expect(await peer.sees("m2", proof)).toBe(true);
    expect(await peer.sees("m1", proof)).toBe(false);
    await witness.forget("m2");
    expect(await peer.sees("m2", proof)).toBe(false);
    await witness.forget("m2");
  });

  test("is not seen in another directory, nor is another proof", async () => {
    const elsewhere = join(sharedDir, "elsewhere");
    await mkdir(elsewhere);
    const other = await Witness.open(elsewhere);
    const proof = await witness.prove("m1");
    expect(await other.sees("m1", proof)).toBe(false);
    const otherProof = await other.prove("m1");
    expect(otherProof).not.toBe(proof);
    expect(await other.sees("m1", proof)).toBe(false);
    for (const text of ["", proof.slice(1), `${proof}0`, proof.toUpperCase(), "é".repeat(32)]) {
      expect(await witness.sees("m1", text)).toBe(false);
    }
    expect(await witness.sees("m1", proof)).toBe(true);
  });

  test("takes the place of an earlier one", async () => {
    const earlier = await witness.prove("m1");
    const later = await witness.prove("m1");
    expect([await witness.sees("m1", earlier), await witness.sees("m1", later)]).toEqual([
      false,
      true,
    ]);
    expect(await readdir(directory)).toEqual(["m1.proof"]);
  });

  test("has to be there for a first decision, so that none is made in another directory", async () => {
    const elsewhere = join(sharedDir, "elsewhere");
    await mkdir(elsewhere);
    const notMounted = await Witness.open(elsewhere);
    await expect(notMounted.decide(stun, "revoked", "s1")).rejects.toMatchObject(notUsable);
    await expect(notMounted.decide(stun, "revoked", "s1")).rejects.toThrow("proof of migration m1");
    expect(await readdir(join(elsewhere, "vmferry-witness"))).toEqual([]);
  });

  test("may be forgotten without harm to what is decided already", async () => {
    await witness.decide(stun, "taken", "d1");
    await witness.forget("m1");
    expect(await witness.decide(stun, "revoked", "s1")).toBe("taken");
    const next = { ...stun, generation: 2 };
    await expect(witness.decide(next, "revoked", "s1")).rejects.toMatchObject(notUsable);
    expect(await witness.look(next)).toBeNull();
  });
});
