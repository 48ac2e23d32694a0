import { spawn } from "node:child_process";
import { once } from "node:events";
import { expect, test } from "vitest";
import { findGuest } from "./adopt-guest.ts";

test("a QEMU is found by the socket that it serves, as long as it lives", async () => {
  const path = `/tmp/vmferry-find-${process.pid}/qmp.sock`;
  expect(findGuest(path)).toBeNull();
  const argument = `id=qmp,path=${path},server=on`;
  const child = spawn("sleep", ["60"], { argv0: `sleep ${argument}`, stdio: "ignore" });
  await once(child, "spawn");
  await expect.poll(() => findGuest(path)?.pid).toBe(child.pid);
  expect(findGuest(`${path}x`)).toBeNull();
  child.kill("SIGKILL");
  await once(child, "exit");
  expect(findGuest(path)).toBeNull();
});
