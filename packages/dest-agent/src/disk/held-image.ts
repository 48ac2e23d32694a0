/** For tests: an image in memory whose requests wait, one by one, for the test to let them go on. */
import { Deferred } from "@vmferry/core";
import { BlockError, type BlockDevice, type BlockErrno, type Extent } from "@vmferry/block";

/** `write 512+1024`: what was asked for, at which offset and of which length. */
export interface ImageRequest {
  readonly text: string;
  /** Carries it out. */
  readonly go: () => void;
  readonly fail: (errno: BlockErrno) => void;
}

export class HeldImage implements BlockDevice {
  readonly sizeBytes: number;
  readonly content: Buffer;
  /** Everything that was asked for so far. */
  readonly log: string[] = [];
  /** What waits, while requests are held. */
  readonly waiting: ImageRequest[] = [];
  hold = false;

  constructor(sizeBytes: number) {
    this.sizeBytes = sizeBytes;
    this.content = Buffer.alloc(sizeBytes);
  }

  async read(offset: number, length: number): Promise<Buffer> {
    await this.#perform(`read ${offset}+${length}`, () => undefined);
    return Buffer.from(this.content.subarray(offset, offset + length));
  }

  readInto(offset: number, buffer: Buffer): Promise<void> {
    return this.#perform(`read ${offset}+${buffer.length}`, () => {
      this.content.copy(buffer, 0, offset);
    });
  }

  write(offset: number, data: Buffer): Promise<void> {
    return this.#perform(`write ${offset}+${data.length}`, () => {
      data.copy(this.content, offset);
    });
  }

  writeZeroes(offset: number, length: number, options: { mayPunch: boolean }): Promise<void> {
    const name = options.mayPunch ? "punch" : "zero";
    return this.#perform(`${name} ${offset}+${length}`, () => {
      this.content.fill(0, offset, offset + length);
    });
  }

  trim(): Promise<void> {
    return Promise.reject(new Error("what is trimmed has to read as zeros"));
  }

  flush(): Promise<void> {
    return this.#perform("flush", () => undefined);
  }

  extents(): Promise<readonly Extent[]> {
    return Promise.reject(new Error("nobody asks the dest's image for its holes"));
  }

  /** Lets everything that waits go on, in the order in which it came. */
  goAll(): void {
    for (const { go } of this.waiting.splice(0)) go();
  }

  /** Takes out the one that waits with this text. */
  take(text: string): ImageRequest {
    const index = this.waiting.findIndex((request) => request.text === text);
    if (index === -1) throw new Error(`no ${text} waits, but ${this.#waitingText}`);
    return this.waiting.splice(index, 1)[0]!;
  }

  get #waitingText(): string {
    return this.waiting.map(({ text }) => text).join(", ");
  }

  async #perform(text: string, effect: () => void): Promise<void> {
    this.log.push(text);
    if (this.hold) {
      const turn = new Deferred();
      const fail = (errno: BlockErrno): void => {
        const detail = { code: "block-io", errno, operation: text, offset: null } as const;
        turn.reject(new BlockError(`${text} failed`, detail));
      };
      this.waiting.push({ text, go: turn.resolve.bind(turn), fail });
      await turn.promise;
    }
    effect();
  }
}
