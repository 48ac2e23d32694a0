import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, describe, expect, it } from "vitest";
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

  it("runs at the dest while nearly all of it is at the source, and has it whole in the end", async () => {
    const image = "large.raw";
    await test.lab.makeDisk(image, 4 * GIB, { fill: 0.25 });
    const guest = await test.boot({
      memoryMib: 256,
      workload: { mem: "64M", rate: "500", diskrate: "100", disksweep: "8" },
      disks: [{ id: "disk0", image }],
    });
    const atDest = test.lab.follow(test.lab.destSerialLog(guest.name));
    const askedAtMs = performance.now();
    const id = await guest.migrate({ disk: { handover: "lazy" } });
    // Now, and not when all of its memory is there.
    await test.lab.source.api.request("POST", `/v1/migrations/${id}/post-copy`);
    await atDest.waitFor(({ latestSign }) => latestSign !== null, { timeoutMs: 60_000 });
    const runsMs = atDest.lines[0]!.seenAtMs - askedAtMs;
    const [disk] = (await test.lab.dest.api.migration(id)).disks;
    expect(disk!.remainingBytes ?? disk!.totalBytes).toBeGreaterThan(3.5 * GIB);
    expect(runsMs).toBeLessThan(RUNS_MS_MAX);
    const { phases } = await expectWholeDisk({ guest, image, id }, directory);
    expect(phases.map(({ phase }) => phase)).not.toContain("disk-copy");
    expect(test.lab.source.logText).toContain('"start":"now"');
    // The dest ends that connection when it lacks nothing, and nobody has lost one.
    expect(test.lab.source.logText).not.toContain("dialling again");
    const begun = Date.parse(phases[0]!.at);
    const handedOverMs = Date.parse(phases.find(({ phase }) => phase === "post-copy")!.at) - begun;
    console.info(
      `vCPUs ran at the dest after ${handedOverMs} ms; a sign after ${Math.round(runsMs)}`,
    );
  });
});
