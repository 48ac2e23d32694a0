import { expect, test } from "vitest";
import { seenQemu, type SeenQemu } from "./seen-qemu.ts";

test("a QEMU that nobody can ask is gone, and one that runs runs whatever else it says", () => {
  expect(seenQemu(null)).toBe("gone");
  expect(seenQemu({ status: "running", running: true })).toBe("running");
});

/* Every RunState of QEMU that is not `running`. */
const standing: Readonly<Record<string, SeenQemu>> = {
  paused: "paused",
  inmigrate: "inmigrate",
  prelaunch: "inmigrate",
  "finish-migrate": "finish-migrate",
  postmigrate: "postmigrate",
  "io-error": "halted",
  "guest-panicked": "halted",
  "internal-error": "halted",
  shutdown: "halted",
  suspended: "halted",
  watchdog: "halted",
  debug: "halted",
  "save-vm": "halted",
  "restore-vm": "halted",
  colo: "halted",
  "a later QEMU's own": "halted",
};

test.each(Object.entries(standing))("%s is seen as %s", (status, seen) => {
  expect(seenQemu({ status, running: false })).toBe(seen);
});
