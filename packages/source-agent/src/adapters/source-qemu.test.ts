import { expect, test } from "vitest";
import { ManualClock } from "@vmferry/agent";
import type { QmpClient } from "@vmferry/qemu";
import { SourceQemu } from "./source-qemu.ts";

/** A QEMU whose migration has ended, and whose guest is what `status` says until a `cont`. */
function qemuOf(status: string): { readonly qemu: SourceQemu; readonly commands: string[] } {
  const commands: string[] = [];
  const clock = new ManualClock();
  const qmp = {
    execute: (command: string) => {
      commands.push(command);
      if (command === "query-migrate") return Promise.resolve({ status: "failed" });
      return Promise.resolve({ status, running: status === "running" });
    },
    waitFor: () => {
      clock.advance(100);
      return Promise.reject(new Error("no event"));
    },
  };
  return { qemu: new SourceQemu(qmp as unknown as QmpClient, clock), commands };
}

test.each(["running", "io-error", "guest-panicked", "shutdown"])(
  "a guest that is %s needs nobody to let it run",
  async (status) => {
    const { qemu, commands } = qemuOf(status);
    await qemu.resume();
    expect(commands).toEqual(["query-migrate", "query-status"]);
  },
);

test.each(["paused", "postmigrate"])("a guest that is %s is started", async (status) => {
  const { qemu, commands } = qemuOf(status);
  await qemu.resume();
  expect(commands.at(-1)).toBe("cont");
});

test("a guest that runs on although it was told to stop was not stopped", async () => {
  await expect(qemuOf("running").qemu.halt()).rejects.toThrow("runs on");
  const { qemu, commands } = qemuOf("paused");
  await qemu.halt();
  expect(commands).toEqual(["stop", "query-status"]);
});

test("a guest that stands still for a migration is not called back", async () => {
  await expect(qemuOf("finish-migrate").qemu.resume()).rejects.toThrow("did not run again");
});

test("a guest that is to stay stopped is stopped again where its migration has started it", async () => {
  const commands: string[] = [];
  const clock = new ManualClock();
  // Behind `stop` QEMU is at the switch-over still; then it fails, and starts the guest by itself.
  const states = ["finish-migrate", "finish-migrate", "running", "paused"];
  const migrations = ["device", "failed", "failed"];
  const qmp = {
    execute: (command: string) => {
      commands.push(command);
      if (command === "query-migrate") return Promise.resolve({ status: migrations.shift() });
      if (command !== "query-status") return Promise.resolve({});
      const status = states.shift();
      return Promise.resolve({ status, running: status === "running" });
    },
    waitFor: () => {
      clock.advance(100);
      return Promise.reject(new Error("no event"));
    },
  };
  await new SourceQemu(qmp as unknown as QmpClient, clock).keepStopped();
  expect(commands.filter((command) => !command.startsWith("query-"))).toEqual([
    ...["stop", "migrate_cancel", "stop"],
  ]);
  expect([states, commands.at(-1)]).toEqual([[], "query-status"]);
});
