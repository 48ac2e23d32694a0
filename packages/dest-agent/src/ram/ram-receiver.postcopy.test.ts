import { limits } from "@vmferry/protocol";
import { describe, expect, it } from "vitest";
import { BLOCKS, hex, ReceiverBench, settle, type ReceiverBenchOptions } from "./receiver-bench.ts";

const { PAGE_BYTES } = limits;
const DEVICES = hex("0400000009".padEnd(80, "5a") + "7e00000009");

/** Six pages are here, in a pass of their own. */
async function loaded(options: ReceiverBenchOptions = {}): Promise<ReceiverBench> {
  const bench = new ReceiverBench({ postCopy: true, ...options });
  await bench.announce(options.connections ?? 1);
  bench.source.pages(0, [[10, 4, 1]]);
  bench.source.pages(1, [[0, 2, 0]]);
  await settle();
  return bench;
}

function handOver({ source }: ReceiverBench): void {
  source.nextPass();
  source.missing(0, [
    [12, 1],
    [20, 3],
  ]);
  source.missing(1, [[1, 3]]);
  source.postcopy(DEVICES.length);
  source.stream(DEVICES.subarray(0, 11));
  source.stream(DEVICES.subarray(11));
}

describe("RamReceiver in a migration that may become a post-copy", () => {
  it("tells QEMU before RAM is announced", async () => {
    const bench = await loaded();
    expect(bench.qemu.commands).toEqual(["POSTCOPY_ADVISE"]);
    const ordinary = new ReceiverBench();
    await ordinary.announce();
    expect(ordinary.qemu.commands).toEqual([]);
  });

  it("ends as ever where all of memory comes before the hand-over", async () => {
    const bench = await loaded();
    bench.source.nextPass();
    bench.source.ramEnd();
    bench.source.stream(DEVICES);
    await settle();
    expect(bench.qemu).toMatchObject({ ramEnded: true, isPackaged: false });
    expect(bench.receiver.switchOver).toBeNull();
  });

  it("lets QEMU forget what is missing, and packs device state", async () => {
    const bench = await loaded();
    handOver(bench);
    await bench.receiver.ramEnded.promise;
    await settle();
    expect(bench.qemu.commands).toEqual([
      ...["POSTCOPY_ADVISE", "POSTCOPY_RAM_DISCARD", "POSTCOPY_RAM_DISCARD", "PACKAGED"],
    ]);
    expect(bench.qemu.discards).toEqual([
      {
        block: "pc.ram",
        ranges: [
          { startBytes: 12 * PAGE_BYTES, lengthBytes: PAGE_BYTES },
          { startBytes: 20 * PAGE_BYTES, lengthBytes: 3 * PAGE_BYTES },
        ],
      },
      { block: "pc.rom", ranges: [{ startBytes: PAGE_BYTES, lengthBytes: 3 * PAGE_BYTES }] },
    ]);
    expect(bench.qemu).toMatchObject({ isPackaged: true, ramEnded: false });
    expect(bench.receiver.switchOver!.missing.count).toBe(7);
    expect(bench.creditBytes).toBe(bench.source.sentBytes);
  });

  it("counts missing pages as never sent", async () => {
    const bench = await loaded();
    handOver(bench);
    await bench.receiver.ramEnded.promise;
    const other = new ReceiverBench();
    await other.announce();
    other.source.pages(0, [
      [10, 2, 1],
      [13, 1, 1],
    ]);
    other.source.pages(1, [[0, 1, 0]]);
    await settle();
    expect(bench.receiver.digest()).toBe(other.receiver.digest());
  });

  it("packs device state where nothing is missing", async () => {
    const bench = await loaded();
    bench.source.nextPass();
    bench.source.postcopy(DEVICES.length);
    bench.source.stream(DEVICES);
    await settle();
    expect(bench.qemu).toMatchObject({ isPackaged: true, discards: [] });
  });
});

describe("RamReceiver refuses", () => {
  const tooMuch = limits.DEVICE_STATE_BYTES_MAX + 1;

  it.each<[string, (bench: ReceiverBench) => void]>([
    [
      "missing pages in a pass with others",
      ({ source }) => {
        source.missing(0, [[0, 1]]);
      },
    ],
    [
      "the package in a pass with pages",
      ({ source }) => {
        source.postcopy(10);
      },
    ],
    [
      "a page that is missing twice",
      ({ source }) => {
        source.nextPass();
        source.missing(0, [[5, 2]]);
        source.missing(0, [[6, 1]]);
      },
    ],
    [
      "missing pages outside their block",
      ({ source }) => {
        source.nextPass();
        source.missing(1, [[3, 2]]);
      },
    ],
    [
      "missing pages of a block that is not there",
      ({ source }) => {
        source.nextPass();
        source.missing(BLOCKS.length, [[0, 1]]);
      },
    ],
    [
      "pages behind missing ones",
      ({ source }) => {
        source.nextPass();
        source.missing(0, [[5, 2]]);
        source.pages(0, [[30, 1, 1]]);
      },
    ],
    [
      "the end of RAM behind missing pages",
      ({ source }) => {
        source.nextPass();
        source.missing(0, [[5, 2]]);
        source.ramEnd();
      },
    ],
    [
      "missing pages behind the end of RAM",
      ({ source }) => {
        source.nextPass();
        source.ramEnd();
        source.missing(0, [[5, 2]]);
      },
    ],
    [
      "a package behind the end of RAM",
      ({ source }) => {
        source.nextPass();
        source.ramEnd();
        source.postcopy(10);
      },
    ],
    [
      "a second package",
      (bench) => {
        handOver(bench);
        bench.source.postcopy(10);
      },
    ],
    [
      "pages behind the package",
      (bench) => {
        handOver(bench);
        bench.source.nextPass();
        bench.source.pages(0, [[30, 1, 1]]);
      },
    ],
    [
      "the end of RAM behind the package",
      (bench) => {
        handOver(bench);
        bench.source.ramEnd();
      },
    ],
    [
      "more device state than was announced",
      (bench) => {
        handOver(bench);
        bench.source.stream(Buffer.of(0));
      },
    ],
    [
      "a package of nothing",
      ({ source }) => {
        source.nextPass();
        source.postcopy(0);
      },
    ],
    [
      "a package beyond the limit",
      ({ source }) => {
        source.nextPass();
        source.postcopy(tooMuch);
      },
    ],
  ])("%s", async (_what, send) => {
    const bench = await loaded();
    send(bench);
    await expect(bench.running).rejects.toMatchObject({ name: "ProtocolError" });
  });

  it("missing pages where post-copy was not agreed on", async () => {
    const bench = await loaded({ postCopy: false });
    bench.source.nextPass();
    bench.source.missing(0, [[5, 2]]);
    await expect(bench.running).rejects.toMatchObject({ name: "ProtocolError" });
  });

  it("missing pages before RAM is announced", async () => {
    const bench = new ReceiverBench({ postCopy: true });
    bench.source.missing(0, [[5, 2]]);
    await expect(bench.running).rejects.toMatchObject({ name: "ProtocolError" });
  });

  it("missing pages on another connection than the first", async () => {
    const bench = await loaded({ connections: 2 });
    bench.source.nextPass(2);
    expect(() => {
      bench.source.missing(0, [[5, 2]], { connection: 1 });
    }).toThrow(/ordered frame/);
  });
});
