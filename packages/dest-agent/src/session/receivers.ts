import { collectYoungGarbage } from "@vmferry/agent";
import { limits, type ControlMessageOf } from "@vmferry/protocol";
import { BulkReceiver } from "../bulk/bulk-receiver.ts";
import type { IncomingDisks } from "../disk/incoming-disks.ts";
import type { StreamSink } from "../ram/qemu-sink.ts";
import { RamReceiver } from "../ram/ram-receiver.ts";

/** ROMs, video memory and ACPI tables beside the guest's own memory. */
const EXTRA_RAM_BYTES_MAX = 1024 * 1024 * 1024;

export interface ReceiversOptions {
  readonly offer: ControlMessageOf<"offer">;
  readonly sink: StreamSink;
  readonly disks: IncomingDisks;
  /** Feature `zstd` was agreed. */
  readonly compression: boolean;
  /** QEMU can take memory after the hand-over. */
  readonly postCopy: boolean;
  readonly onCredit: (bytes: number) => void;
}

/** What a session does with the frames of its bulk connections. */
export interface Receivers {
  readonly ram: RamReceiver;
  readonly bulk: BulkReceiver;
}

export function openReceivers(options: ReceiversOptions): Receivers {
  const { offer, sink, disks, compression, postCopy, onCredit } = options;
  const { bulkConnections: connections, hashSeed, guest } = offer;
  const ram = new RamReceiver({
    sink,
    connections,
    hashSeed,
    compression,
    postCopy,
    ramBytesMax: guest.memoryBytes + EXTRA_RAM_BYTES_MAX,
  });
  const bulk = new BulkReceiver({
    connections,
    creditBytes: limits.CREDIT_BYTES_MAX,
    ram,
    disks: disks.receiver,
    onCredit,
    onGarbage: collectYoungGarbage,
  });
  return { ram, bulk };
}
