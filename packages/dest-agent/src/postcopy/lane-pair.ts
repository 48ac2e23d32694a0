/**
 * The two page lanes of an attempt at the dest. What comes is checked here as far as it can be without
 * knowing memory; it waits here.
 *
 * What waits is bounded by the credit that the source has, and by a number of frames.
 */
import {
  decodePageMessage,
  encodePageMessage,
  FrameEncoding,
  FrameKind,
  isPageMessage,
  limits,
  openFrame,
  violation,
  type CloseCode,
  type FrameHeader,
  type PageLaneName,
  type PageMessage,
} from "@vmferry/protocol";
import type { PageLink } from "../session/page-link.ts";

const { CREDIT_BYTES_MAX } = limits;
/** Small ones would otherwise take more memory than their credit. */
const FRAMES_MAX = 65_536;

export interface ArrivedPages {
  readonly lane: PageLaneName;
  readonly header: FrameHeader;
  readonly frame: Buffer;
}

export interface LanePairOptions {
  /** Something waits to be taken. */
  readonly onArrived: (lane: PageLaneName) => void;
  /** The source says that it has sent everything. Throws what breaks the protocol. */
  readonly onServed: (ramDigest: string | null) => void;
  /** A lane is lost, or the source has broken the protocol. */
  readonly onEnd: (reason: unknown) => void;
}

interface Lane {
  readonly name: PageLaneName;
  readonly link: PageLink;
  readonly waiting: ArrivedPages[];
  frames: number;
  /** Arrived, and not told of in PLACED. */
  owedBytes: number;
}

export class LanePair {
  readonly attempt: number;
  /** The source knows what is missing: from now on it may send pages. */
  isGreeted = false;
  readonly #options: LanePairOptions;
  readonly #lanes = new Map<PageLaneName, Lane>();
  #isOver = false;

  constructor(attempt: number, options: LanePairOptions) {
    this.attempt = attempt;
    this.#options = options;
  }

  get isWhole(): boolean {
    return this.#lanes.size === 2;
  }

  get isOver(): boolean {
    return this.#isOver;
  }

  has(lane: PageLaneName): boolean {
    return this.#lanes.has(lane);
  }

  add(name: PageLaneName, link: PageLink): void {
    const lane: Lane = { name, link, waiting: [], frames: 0, owedBytes: 0 };
    this.#lanes.set(name, lane);
    link.listen(
      (bytes) => {
        if (this.#isOver) return;
        try {
          this.#take(lane, bytes);
        } catch (error) {
          this.#options.onEnd(error);
        }
      },
      (reason) => {
        if (!this.#isOver) this.#options.onEnd(reason);
      },
    );
  }

  /** Resolves when it has left, or never will. */
  say(message: PageMessage): Promise<void> {
    return new Promise((resolve) => {
      this.#lanes.get("urgent")!.link.send(encodePageMessage(message), resolve);
    });
  }

  /** What waits longest. */
  next(lane: PageLaneName): ArrivedPages | undefined {
    return this.#lanes.get(lane)?.waiting.shift();
  }

  /** QEMU has it. */
  placed({ lane, frame }: ArrivedPages): void {
    if (this.#isOver) return;
    this.#lanes.get(lane)!.owedBytes -= frame.length;
    void this.say({ kind: "placed", lane, bytes: frame.length });
  }

  close(code: CloseCode): void {
    this.#isOver = true;
    for (const lane of this.#lanes.values()) {
      lane.waiting.length = 0;
      lane.link.close(code);
    }
  }

  #take(lane: Lane, bytes: Buffer): void {
    if (!this.isGreeted) throw violation("a page before all of MISSING was said");
    if (isPageMessage(bytes)) {
      if (lane.name !== "urgent") throw violation("a page message in the background");
      const message = decodePageMessage(bytes);
      if (message.kind !== "served") throw violation("a page message of the dest");
      this.#options.onServed(message.ramDigest);
      return;
    }
    const header = openFrame(bytes);
    if (header.kind !== FrameKind.PAGES) throw violation("a frame without pages on a page lane");
    if (header.pass !== 0) throw violation("a pass on a page lane");
    if (header.sequence !== lane.frames++) throw violation("sequence of a page lane");
    if (lane.name === "urgent" && header.encoding !== FrameEncoding.RAW) {
      throw violation("a compressed frame on the urgent lane");
    }
    lane.owedBytes += bytes.length;
    if (lane.owedBytes > CREDIT_BYTES_MAX) throw violation("credit of a page lane exceeded");
    if (lane.waiting.length >= FRAMES_MAX) throw violation("too many frames at once");
    lane.waiting.push({ lane: lane.name, header, frame: bytes });
    this.#options.onArrived(lane.name);
  }
}
