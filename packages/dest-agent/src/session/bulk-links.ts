/**
 * The bulk connections of a session: one an index, over one connection after another. It is counted
 * how many frames of each index have come; the source drops what it is told of, and whoever dials in
 * the place of a lost connection is told first.
 */
import { CloseCode, limits, ProtocolError } from "@vmferry/protocol";
import type { BulkLink } from "./bulk-link.ts";

const { RECEIVED_FRAMES_STEP, RECEIVED_FRAME_BYTES_STEP } = limits;

export interface BulkLinksOptions {
  readonly count: number;
  /** A frame of an index, in order and once; throws what breaks the protocol. */
  readonly onFrame: (index: number, frame: Buffer) => void;
  readonly onFailed: (error: unknown) => void;
}

interface Lane {
  link: BulkLink | null;
  frames: number;
  /** Of them, what the source was told. */
  toldFrames: number;
  /** Of those that it was not told of. */
  untoldBytes: number;
}

export class BulkLinks {
  readonly #options: BulkLinksOptions;
  readonly #lanes: readonly Lane[];
  #isOver = false;

  constructor(options: BulkLinksOptions) {
    this.#options = options;
    this.#lanes = Array.from({ length: options.count }, () => ({
      link: null,
      frames: 0,
      toldFrames: 0,
      untoldBytes: 0,
    }));
  }

  get count(): number {
    return this.#lanes.length;
  }

  /** Takes the place of an older connection of the index, which may not know yet that it is lost. */
  attach(index: number, link: BulkLink): void {
    if (this.#isOver) {
      link.close(CloseCode.SESSION_ENDED);
      return;
    }
    const lane = this.#lanes[index]!;
    lane.link?.close(CloseCode.SESSION_ENDED);
    lane.link = link;
    link.listen(
      (frame) => {
        if (lane.link === link) this.#arrived(index, frame);
      },
      (reason) => {
        // Any other end is for the source to repair, and to say when it cannot.
        if (lane.link === link && reason instanceof ProtocolError) this.#options.onFailed(reason);
      },
    );
    this.#tell(lane);
  }

  /** The session is over. */
  close(): void {
    this.#isOver = true;
    for (const lane of this.#lanes) {
      lane.link?.close(CloseCode.DONE);
      lane.link = null;
    }
  }

  #arrived(index: number, frame: Buffer): void {
    const lane = this.#lanes[index]!;
    try {
      this.#options.onFrame(index, frame);
    } catch (error) {
      this.#options.onFailed(error);
      return;
    }
    lane.frames++;
    lane.untoldBytes += frame.length;
    const untold = lane.frames - lane.toldFrames;
    if (untold >= RECEIVED_FRAMES_STEP || lane.untoldBytes >= RECEIVED_FRAME_BYTES_STEP) {
      this.#tell(lane);
    }
  }

  #tell(lane: Lane): void {
    lane.toldFrames = lane.frames;
    lane.untoldBytes = 0;
    lane.link?.send({ kind: "received", received: lane.frames });
  }
}
