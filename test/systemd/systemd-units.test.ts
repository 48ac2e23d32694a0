/** What systemd itself says of the units in deploy/systemd. */
import { execFile, spawnSync } from "node:child_process";
import { mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { promisify } from "node:util";
import { afterAll, beforeAll, describe, expect, test } from "vitest";

const run = promisify(execFile);
const CHECKOUT = fileURLToPath(new URL("../..", import.meta.url)).replace(/\/$/, "");
const HAS_SYSTEMD = spawnSync("systemd-analyze", ["--version"]).status === 0;
const MAY_SKIP = !HAS_SYSTEMD && process.env["CI"] === undefined;
const TITLE = `the unit${MAY_SKIP ? " (skipped: there is no systemd-analyze)" : ""}`;
/** Tenths, of what systemd-analyze calls exposure; 18 is what an agent needs. */
const EXPOSURE_MAX = 18;

describe.skipIf(MAY_SKIP).each(["source", "dest"])(`${TITLE} of a %s agent`, (role) => {
  let directory: string;
  let path: string;

  beforeAll(async () => {
    directory = await mkdtemp(join(tmpdir(), "vmferry-units-"));
    const unit = await readFile(join(CHECKOUT, "deploy/systemd/vmferry@.service"), "utf8");
    // The programs have to be there.
    const text = unit.replaceAll("/opt/vmferry", CHECKOUT);
    await writeFile(join(directory, "vmferry@.service"), text);
    path = join(directory, `vmferry@${role}.service`);
  });

  afterAll(() => rm(directory, { recursive: true }));

  test("is understood whole", async () => {
    const { stdout, stderr } = await run("systemd-analyze", ["verify", "--man=no", path]);
    expect(stdout + stderr).toBe("");
  });

  test("allows no more than it has to", async () => {
    // It rejects where the exposure is above the threshold.
    const { stdout } = await run("systemd-analyze", [
      "security",
      "--offline=true",
      `--threshold=${EXPOSURE_MAX}`,
      path,
    ]);
    expect(stdout).toContain("Overall exposure level");
  });
});
