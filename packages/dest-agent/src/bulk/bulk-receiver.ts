/**
 * Frames as they come in on all bulk connections of a session: opened, counted, and handed to
 * memory or to the disks.
 */
import { costsCredit, FrameKind, openFrame, violation, type FrameHeader } from "@vmferry/protocol";
import { CreditLedger } from "./credit-ledger.ts";

/** Frames received between two calls of `onGarbage`. */
const GARBAGE_BYTES = 16 * 1024 * 1024;

/** An opened frame. `done` is to be called once, when its content is where it belongs. */
export interface ArrivedFrame {
  readonly connection: number;
  readonly header: FrameHeader;
  readonly frame: Buffer;
  readonly done: () => void;
}

export interface FrameTarget {
  arrived(arrived: ArrivedFrame): void;
}

export interface BulkReceiverOptions {
  readonly connections: number;
  readonly creditBytes: number;
  readonly ram: FrameTarget;
  /** Null for a guest without disks that are copied. */
  readonly disks: FrameTarget | null;
  readonly onCredit: (bytes: number) => void;
  /** Called now and then: frames that were dealt with are garbage. */
  readonly onGarbage: () => void;
}

export class BulkReceiver {
  readonly #options: BulkReceiverOptions;
  readonly #sequences: number[];
  readonly #credit: CreditLedger;
  #wireBytes = 0;
  #garbageBytes = 0;

  constructor(options: BulkReceiverOptions) {
    this.#options = options;
    this.#sequences = Array.from({ length: options.connections }, () => 0);
    this.#credit = new CreditLedger(options.creditBytes, options.onCredit);
  }

  get wireBytes(): number {
    return this.#wireBytes;
  }

  /** A message of bulk connection `connection`. The buffer stays with the receiver. */
  arrived(connection: number, frame: Buffer): void {
    const header = openFrame(frame);
    if (header.sequence !== this.#sequences[connection]!++) throw violation("frame sequence");
    this.#wireBytes += frame.length;
    this.#becomesGarbage(frame.length);
    const { ram, disks } = this.#options;
    const isOfDisk = header.kind === FrameKind.DISK || header.kind === FrameKind.DISK_END;
    const target = isOfDisk ? disks : ram;
    if (target === null) throw violation("frame of a disk that was not offered");
    const bytes = costsCredit(header.kind) ? frame.length : 0;
    if (bytes > 0) this.#credit.owe(bytes);
    const done = (): void => {
      if (bytes > 0) this.#credit.done(bytes);
    };
    target.arrived({ connection, header, frame, done });
  }

  #becomesGarbage(bytes: number): void {
    this.#garbageBytes += bytes;
    if (this.#garbageBytes < GARBAGE_BYTES) return;
    this.#garbageBytes = 0;
    this.#options.onGarbage();
  }
}
