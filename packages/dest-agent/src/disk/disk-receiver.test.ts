import { describe, expect, test, vi } from "vitest";
import { DiskHashes, ManualClock } from "@vmferry/agent";
import { FrameEncoding, FrameKind, type ProtocolError } from "@vmferry/protocol";
import { bytesOf, frameOf, settle, UNIT_BYTES } from "./arriving-bench.ts";
import { ArrivingDisk } from "./arriving-disk.ts";
import { DiskReceiver } from "./disk-receiver.ts";
import { HeldImage } from "./held-image.ts";

const violated = expect.objectContaining({ code: "protocol-violation" }) as ProtocolError;
const SIZE_BYTES = 4 * UNIT_BYTES;

interface Moving {
  readonly image: HeldImage;
  readonly disk: ArrivingDisk;
}

function moving(id: string): Moving {
  const image = new HeldImage(SIZE_BYTES);
  const disk = new ArrivingDisk({
    id,
    image,
    mark: { update: () => Promise.resolve() },
    hashes: new DiskHashes({
      sizeBytes: SIZE_BYTES,
      unitBytes: UNIT_BYTES,
      seedHex: "1".repeat(16),
    }),
    compression: true,
    clock: new ManualClock(),
    onFailed: () => undefined,
  });
  return { image, disk };
}

/** A guest with three disks, the one in the middle shared. */
function receiverOf(connections: number): {
  readonly receiver: DiskReceiver;
  readonly first: Moving;
  readonly last: Moving;
  readonly end: (connection: number) => void;
} {
  const [first, last] = [moving("disk0"), moving("disk2")];
  const receiver = new DiskReceiver([first.disk, null, last.disk], connections);
  const end = (connection: number): void => {
    receiver.arrived({
      connection,
      header: {
        kind: FrameKind.DISK_END,
        encoding: FrameEncoding.RAW,
        pass: 0,
        sequence: 0,
        block: 0,
        runs: 0,
      },
      frame: Buffer.alloc(32),
      done: () => undefined,
    });
  };
  return { receiver, first, last, end };
}

describe("the frames of several disks", () => {
  test("go each to its own", async () => {
    const { receiver, first, last } = receiverOf(2);
    receiver.arrived(frameOf([{ at: 0, data: bytesOf(10, 1) }], { disk: 0, connection: 0 }));
    receiver.arrived(frameOf([{ at: 0, data: bytesOf(10, 2) }], { disk: 2, connection: 0 }));
    await settle();
    expect(first.image.content.subarray(0, 10).equals(bytesOf(10, 1))).toBe(true);
    expect(last.image.content.subarray(0, 10).equals(bytesOf(10, 2))).toBe(true);
  });

  test("are refused over another connection than the disk's own", () => {
    const { receiver } = receiverOf(3);
    const frame = frameOf([{ at: 0, zero: 10 }], { disk: 2, connection: 1 });
    expect(() => {
      receiver.arrived(frame);
    }).toThrow(violated);
  });

  test("are refused for a disk that is not copied, or that there is not", () => {
    const { receiver } = receiverOf(1);
    for (const disk of [1, 3]) {
      expect(() => {
        receiver.arrived(frameOf([{ at: 0, zero: 10 }], { disk }));
      }).toThrow(violated);
    }
  });
});

describe("the end of all disks", () => {
  test("comes when every connection has said so, with the digests in the disks' order", async () => {
    const { receiver, first, end } = receiverOf(2);
    const ended = vi.fn<(digests: string[]) => void>();
    void receiver.ended.then(ended);
    end(1);
    receiver.arrived(frameOf([{ at: 0, data: bytesOf(UNIT_BYTES) }], { disk: 0, connection: 0 }));
    await settle();
    expect(ended).not.toHaveBeenCalled();
    end(0);
    await settle();
    expect(ended).toHaveBeenCalledOnce();
    const [digests] = ended.mock.calls[0]!;
    expect(digests).toHaveLength(2);
    expect(digests[0]).not.toBe(digests[1]);
    expect(digests[0]).toBe(await first.disk.end());
  });

  test("is the last that a connection says of disks", () => {
    const { receiver, end } = receiverOf(2);
    end(0);
    expect(() => {
      end(0);
    }).toThrow(violated);
    expect(() => {
      receiver.arrived(frameOf([{ at: 0, zero: 10 }], { disk: 0, connection: 0 }));
    }).toThrow(violated);
  });

  test("is none when a disk failed", async () => {
    const { receiver, last, end } = receiverOf(1);
    last.image.hold = true;
    receiver.arrived(frameOf([{ at: 0, data: bytesOf(10) }], { disk: 2 }));
    end(0);
    await settle();
    last.image.take("write 0+10").fail("EIO");
    await expect(receiver.ended).rejects.toThrow("write 0+10 failed");
  });

  test("is none when the disks were stopped, said or not", async () => {
    for (const isSaid of [true, false]) {
      const { receiver, first, end } = receiverOf(1);
      first.image.hold = true;
      receiver.arrived(frameOf([{ at: 0, data: bytesOf(10) }], { disk: 0 }));
      await settle();
      if (isSaid) end(0);
      const stopped = receiver.stop();
      first.image.goAll();
      await stopped;
      await expect(receiver.ended).rejects.toThrow("any more");
    }
  });
});
