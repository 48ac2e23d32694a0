import { expect, test } from "vitest";
import { cancelledMigration, completedMigration, sampleMigration } from "../fake-agent.ts";
import { summaryLine } from "./summary-line.ts";

test("a completed migration is summed up in its figures", () => {
  expect(summaryLine(completedMigration())).toBe(
    "completed: web1 runs at host-b. total 4.20 s, downtime 38 ms, 312 MiB on the wire, " +
      "average 77.9 MB/s, 3 passes",
  );
});

test.each([
  ["growing", "a part of the rest also by the share"],
  ["complete", "all of the rest also by the share"],
  ["failed", "the share failed"],
])("what the share was good for is told: %s", (fallback, text) => {
  expect(summaryLine({ ...completedMigration(), fallback })).toMatch(new RegExp(`, ${text}$`));
});

test("figures that an agent does not know are unknown", () => {
  const result = {
    downtimeMs: null,
    totalMs: null,
    wireBytes: null,
    ramDigest: null,
    diskDigests: {},
  };
  const line = summaryLine(sampleMigration({ phase: "completed", result }));
  expect(line).toMatch(
    /total unknown, downtime unknown, unknown on the wire, average unknown, unknown passes$/,
  );
});

test("a failed one tells why, with the code", () => {
  const error = { code: "peer-lost", detail: "The link was lost." };
  expect(summaryLine(sampleMigration({ phase: "failed", error }))).toBe(
    "failed: web1 was not moved to host-b: The link was lost. (peer-lost)",
  );
});

test("that a cancelled one was cancelled is said once", () => {
  expect(summaryLine(cancelledMigration())).toBe("cancelled: web1 was not moved to host-b.");
});

test("what a terminal would obey does not get through", () => {
  const error = { code: "dest-load-failed", detail: "qemu: \x1b]0;mine\x07\u202e" };
  const line = summaryLine(sampleMigration({ phase: "failed", error }));
  expect(line).toContain("qemu: \ufffd]0;mine\ufffd\ufffd (dest-load-failed)");
});
