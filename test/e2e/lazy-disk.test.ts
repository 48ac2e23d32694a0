import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, describe, expect, it } from "vitest";
import { judgeHandOver } from "@vmferry/testkit";
import { expectWholeDisk } from "../expect-whole-disk.ts";
import { writeProbedQemu } from "../probed-qemu.ts";
import { useLab } from "../test-lab.ts";

const MIB = 1024 * 1024;
const GIB = 1024 * MIB;
/** "Within a second", with slack for a machine that has other things to do. */
const RUNS_MS_MAX = 3000;

const directory = await mkdtemp(join(tmpdir(), "vmferry-probe-"));
const qemu = await writeProbedQemu(directory);

afterAll(async () => {
  await rm(directory, { recursive: true, force: true });
});

describe("a guest with a disk of 4 GiB that follows it", () => {
  const test = useLab(() => ({ dest: { flags: ["--qemu", qemu] } }));

  it("runs at the dest at once, while all of its disk is at the source", async () => {
    await test.lab.makeDisk("large.raw", 4 * GIB, { fill: 0.5 });
    const guest = await test.boot({
      memoryMib: 256,
      workload: { mem: "64M", rate: "500", diskrate: "100", disksweep: "8" },
      disks: [{ id: "disk0", image: "large.raw" }],
    });
    const atDest = test.lab.follow(test.lab.destSerialLog(guest.name));
    const askedAtMs = performance.now();
    const id = await guest.migrate({ disk: { handover: "lazy" } });
    await atDest.waitFor(({ latestSign }) => latestSign !== null, { timeoutMs: 60_000 });
    const runsMs = atDest.lines[0]!.seenAtMs - askedAtMs;
    const [disk] = (await test.lab.dest.api.migration(id)).disks;
    const { phases } = await test.lab.source.api.migration(id);
    const { silenceMs } = judgeHandOver({
      sourceLines: guest.source.lines,
      destLines: atDest.lines,
    });
    console.info({ runsMs, disk, phases, silenceMs });
    expect(runsMs).toBeLessThan(RUNS_MS_MAX);
    await expectWholeDisk({ guest, image: "large.raw", id }, directory);
    console.info((await test.lab.dest.api.migration(id)).phases);
  });
});
