/** Whatever a source says, QEMU is fed nothing that was not checked. */
import { beforeEach, describe, expect, test } from "vitest";
import { failureOf } from "@vmferry/agent";
import { limits } from "@vmferry/protocol";
import {
  BLOCKS,
  contentPage,
  eos,
  hex,
  prelude,
  RAM_BYTES,
  ramStart,
  ReceiverBench,
  type ReceiverBenchOptions,
  SECTION,
  settle,
  str8,
  streamHeader,
  u32,
  u64,
} from "./receiver-bench.ts";

const { PAGE_BYTES } = limits;

let qemu: ReceiverBench["qemu"];
let source: ReceiverBench["source"];
let running: Promise<void>;
let bench: ReceiverBench;

function begin(options: ReceiverBenchOptions = {}): void {
  bench = new ReceiverBench(options);
  ({ qemu, source, running } = bench);
}

beforeEach(() => {
  begin();
});

describe("a source that breaks the protocol", () => {
  interface Fed {
    readonly memory: [string, string][];
    readonly fedBytes: number;
  }

  function fed(): Fed {
    return { memory: [...qemu.memory], fedBytes: qemu.fedBytes };
  }

  /** The frame is refused where it arrives or where it is fed, and QEMU sees nothing of it. */
  async function refused(rule: string, act: () => void): Promise<void> {
    const before = fed();
    let error: unknown = null;
    try {
      act();
      error = await Promise.race([running, settle()]).then(
        () => null,
        (reason: unknown) => reason,
      );
    } catch (thrown) {
      error = thrown;
    }
    expect(error).toMatchObject({ detail: { code: "protocol-violation", rule } });
    await settle();
    expect(fed()).toEqual(before);
  }

  test("by pages before RAM was announced", async () => {
    await refused("pages before RAM was announced", () => {
      source.pages(0, [[0, 1, 1]]);
    });
  });

  test("by an end of RAM before RAM was announced", async () => {
    await refused("pages before RAM was announced", () => {
      source.ramEnd();
    });
  });

  test("by a block that is not there", async () => {
    await bench.announce();
    await refused("frame of a block that is not there", () => {
      source.pages(2, [[0, 1, 1]]);
    });
  });

  test.each([
    [0, [[100, 1, 1]]],
    [0, [[98, 3, 1]]],
    [0, [[100, 1, 0]]],
    [0, [[0, 101, 0]]],
    [0, [[0, 0x7fff_ffff, 0]]],
    [0, [[0xffff_ffff, 1, 0]]],
    [0, [[0xffff_ffff, 0x7fff_ffff, 0]]],
    [1, [[4, 1, 1]]],
    [
      0,
      [
        [1, 1, 1],
        [99, 2, 0],
      ],
    ],
  ] as const)("by a run outside block %i: %j", async (block, runs) => {
    await bench.announce();
    await refused("run outside its block", () => {
      source.pages(block, runs);
    });
  });

  test("by a page twice in a frame", async () => {
    await bench.announce();
    await refused("runs overlap", () => {
      source.pages(0, [
        [4, 3, 1],
        [6, 1, 0],
      ]);
    });
  });

  test("by pages after the end of RAM", async () => {
    await bench.announce();
    source.ramEnd();
    await settle();
    await refused("pages after the end of RAM", () => {
      source.pages(0, [[0, 1, 1]]);
    });
  });

  test("by ending RAM twice", async () => {
    await bench.announce();
    source.ramEnd();
    await settle();
    await refused("the end of RAM twice", () => {
      source.ramEnd();
    });
  });

  test.each([1, 7, 0xffff_ffff])("by a frame that skips to sequence %i", async (sequence) => {
    await refused("frame sequence", () => {
      source.stream(prelude, { sequence });
    });
  });

  test("by sending a frame again", async () => {
    source.stream(prelude);
    await settle();
    await refused("frame sequence", () => {
      source.stream(prelude, { sequence: 0 });
    });
  });

  test.each([0, 2, 3])("by a frame of pass %i in pass 1", async (pass) => {
    await bench.announce();
    await refused("frame of another pass than its connection's", () => {
      source.pages(0, [[0, 1, 1]], { pass });
    });
  });

  test("by a barrier twice", async () => {
    await bench.announce();
    source.barrier();
    await refused("frame of another pass than its connection's", () => {
      source.barrier();
    });
  });

  test("by a barrier twice on one of two connections", async () => {
    begin({ connections: 2 });
    await bench.announce(2);
    source.barrier({ connection: 1 });
    source.barrier({ connection: 1 });
    await refused("frame of another pass than its connection's", () => {
      source.barrier({ connection: 0 });
    });
  });

  test.each(["stream", "ramEnd"] as const)(
    "by %s on another connection than the first",
    async (kind) => {
      begin({ connections: 2 });
      await bench.announce(2);
      await refused("ordered frame on another connection than the first", () => {
        if (kind === "stream") source.stream(Buffer.of(8), { connection: 1 });
        else source.ramEnd({ connection: 1 });
      });
    },
  );

  test("by more than its credit", async () => {
    begin({ creditBytes: prelude.length + 2 * PAGE_BYTES });
    await bench.announce();
    qemu.hold = true;
    source.pages(0, [[0, 1, 1]]);
    await settle();
    await refused("credit exceeded", () => {
      source.pages(0, [[1, 1, 1]]);
    });
  });

  test("by more than its credit while a pass is waited for", async () => {
    begin({ connections: 2, creditBytes: 64 * 1024 });
    await bench.announce(2);
    source.barrier({ connection: 0 });
    await refused("credit exceeded", () => {
      for (let i = 0; i < 40; i++) source.pages(0, [[i, 1, 1]], { connection: 0, pass: 2 });
    });
  });

  test("by barriers without end on one connection", async () => {
    begin({ connections: 2 });
    await refused("too many frames", () => {
      for (let pass = 0; pass < 70_000; pass++) source.barrier({ connection: 0, pass });
    });
  });

  test("by more RAM than it offered", async () => {
    begin({ ramBytesMax: RAM_BYTES - 1 });
    await refused("more RAM than the offer named", () => {
      source.stream(prelude);
    });
  });

  const part = Buffer.concat([hex("02"), u32(SECTION)]);
  const named = (flags: number, page = 0): Buffer =>
    Buffer.concat([u64(page * PAGE_BYTES + flags), str8("pc.ram")]);
  test.each([
    ["a page", Buffer.concat([part, named(8), contentPage(1), eos])],
    ["a zero page", Buffer.concat([part, named(2), Buffer.of(0), eos])],
    ["an end of RAM", Buffer.concat([hex("03"), u32(SECTION), eos])],
    ["an end of RAM with device state", Buffer.concat([hex("03"), u32(SECTION), eos, hex("00")])],
  ])("by %s in opaque bytes", async (_what, bytes) => {
    await bench.announce();
    await refused("RAM records in opaque bytes", () => {
      source.nextPass();
      source.stream(bytes);
    });
  });

  test("by half a page in opaque bytes, which real pages would fill up", async () => {
    await bench.announce();
    const before = qemu.fedBytes;
    source.stream(Buffer.concat([part, named(8), contentPage(1).subarray(1)]));
    await settle();
    expect(qemu.fedBytes).toBe(before);
    source.nextPass();
    source.pages(0, [[7, 1, 2]]);
    await settle();
    expect([...qemu.memory]).toEqual([["0.7", "2"]]);
  });

  test.each([
    ["no migration stream", Buffer.from("GET / HTTP/1.1\r\n\r\n")],
    ["a second announcement of RAM", Buffer.concat([prelude, ramStart()])],
    ["a device section", Buffer.concat([prelude, hex("04"), u32(9), str8("cpu"), u32(0), u32(1)])],
    ["a page outside its block", Buffer.concat([prelude, part, named(8, 100), contentPage(1)])],
    ["a block that comes twice", Buffer.concat([streamHeader, ramStart([BLOCKS[0]!, BLOCKS[0]!])])],
  ])("by a stream that is none: %s", async (_what, bytes) => {
    source.stream(bytes);
    const error = await running.catch((reason: unknown) => reason);
    expect(failureOf(error, "dest").code).toBe("protocol-violation");
    expect([qemu.writes, qemu.memory.size]).toEqual([0, 0]);
  });

  test("by a frame that was damaged, or is none", async () => {
    await bench.announce();
    const bytes = Buffer.alloc(40);
    expect(() => {
      bench.bulk.arrived(0, bytes);
    }).toThrow(expect.objectContaining({ code: "frame-corrupt" }));
    await refused("frame shorter than its header", () => {
      bench.bulk.arrived(0, Buffer.alloc(31));
    });
  });
});
