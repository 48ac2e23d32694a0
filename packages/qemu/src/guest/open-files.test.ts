import { spawn } from "node:child_process";
import { once } from "node:events";
import { mkdtemp, open, rename, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { expect, test } from "vitest";
import { hasFileOpen } from "./open-files.ts";

test("a process has a file open until it ends, and not what has taken the place of the file", async () => {
  const directory = await mkdtemp(join(tmpdir(), "vmferry-open-"));
  const [path, later] = [join(directory, "a.raw"), join(directory, "b.raw")];
  await writeFile(path, "");
  await writeFile(later, "");
  const handle = await open(path, "r+");
  const child = spawn("sleep", ["60"], { stdio: [handle.fd, "ignore", "ignore"] });
  await once(child, "spawn");
  await handle.close();
  const pid = child.pid!;
  expect([hasFileOpen(pid, path), hasFileOpen(pid, later)]).toEqual([true, false]);
  await rename(later, path);
  expect(hasFileOpen(pid, path)).toBe(false);
  await rm(path);
  expect(hasFileOpen(pid, path)).toBe(false);
  child.kill("SIGKILL");
  await once(child, "exit");
  expect(hasFileOpen(pid, directory)).toBe(false);
  await rm(directory, { recursive: true });
});
