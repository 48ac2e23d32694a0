import { AgentError } from "@vmferry/core";

import type { StreamEvent } from "./naive-stream.ts";
import type { RamBlock } from "./ram-block.ts";
import { StreamRecorder } from "./stream-recorder.ts";

/*
 * For tests: decodes a whole stream in one go, a field at a time, with nothing carried over. It
 * is the twin of StreamDecoder: same events, same refusals.
 */

const FIXED_PAYLOADS: Record<number, readonly number[]> = {
  1: [0],
  2: [4],
  3: [0, 16],
  4: [0],
  5: [0],
  7: [4],
  9: [0],
  11: [0],
};

export interface NaiveResult {
  readonly events: readonly StreamEvent[];
  readonly error: string | null;
}

export function naiveDecode(stream: Buffer): NaiveResult {
  const twin = new NaiveDecoder(stream);
  try {
    twin.run();
    return { events: twin.recorder.events, error: null };
  } catch (error) {
    if (!(error instanceof AgentError)) throw error;
    return { events: twin.recorder.events, error: error.message };
  }
}

function refuse(code: string): never {
  throw new AgentError(code, { code });
}

class NaiveDecoder {
  readonly recorder = new StreamRecorder();
  readonly #stream: Buffer;
  #at = 0;
  #recordAt = 0;
  #ramId: number | null = null;
  #blocks: readonly RamBlock[] = [];
  #lastBlock: number | null = null;
  #summary = 0n;
  #packaged = false;

  constructor(stream: Buffer) {
    this.#stream = stream;
  }

  run(): void {
    if (this.#int(8) !== 0x5145564d00000003n) {
      refuse(
        this.#stream.readUInt32BE(0) === 0x5145564d ? "stream-bad-version" : "stream-bad-magic",
      );
    }
    this.#verbatim();
    for (let index = 0, before = -1; ; index++) {
      const type = this.#u(1);
      if (type === 7 && index === 0) this.#configuration();
      else if (type === 5 && (before === 7 || before === 5)) this.#subsection();
      else if (type === 8) this.#command();
      else if (type === 1) this.#start();
      else if (type === 4) refuse(this.#otherSection());
      else if (type === 2) this.#body();
      else if (type === 3) {
        this.#body();
        break;
      } else if ([0, 5, 6, 7, 0x7e].includes(type)) refuse("stream-unexpected-record");
      else refuse("stream-unknown-record");
      before = type;
    }
    this.recorder.ramEnd();
    if (this.#packaged) this.#onlyEof();
    if (this.#at === this.#stream.length) refuse("stream-truncated");
    this.recorder.deviceState(this.#stream.subarray(this.#at));
  }

  /** Throws where something else follows, but not before it was reported what did not. */
  #onlyEof(): void {
    const type = this.#u(1);
    if ([1, 2, 3, 4, 5, 6, 7, 8, 0x7e].includes(type)) refuse("stream-unexpected-record");
    if (type !== 0) refuse("stream-unknown-record");
    this.#at--;
    if (this.#at + 1 === this.#stream.length) return;
    this.recorder.deviceState(Buffer.of(0));
    refuse("stream-unexpected-record");
  }

  #take(length: number): Buffer {
    if (this.#at + length > this.#stream.length) refuse("stream-truncated");
    this.#at += length;
    return this.#stream.subarray(this.#at - length, this.#at);
  }

  #int(length: number): bigint {
    return this.#take(length).reduce((value, byte) => value * 256n + BigInt(byte), 0n);
  }

  #u(length: 1 | 2 | 4): number {
    return Number(this.#int(length));
  }

  #text(length: number): string {
    return this.#take(length).toString("latin1");
  }

  #verbatim(): void {
    this.recorder.verbatim(this.#stream.subarray(this.#recordAt, this.#at));
    this.#recordAt = this.#at;
  }

  #configuration(): void {
    const length = this.#u(4);
    if (length > 255) refuse("stream-over-limit");
    this.#take(length);
    this.#verbatim();
  }

  #subsection(): void {
    const length = this.#u(1);
    const name = this.#take(length + 4).toString("latin1");
    if (name === "configuration/target-page-bits\0\0\0\x01") {
      if (this.#u(4) !== 12) refuse("stream-unsupported-configuration");
    } else if (name === "configuration/uuid\0\0\0\x01") this.#take(16);
    else if (name === "configuration/capabilities\0\0\0\x01") {
      const count = this.#u(4);
      if (count > 64) refuse("stream-over-limit");
      for (let index = 0; index < count; index++) {
        const capability = this.#text(this.#u(1));
        if (capability === "x-ignore-shared" || capability === "mapped-ram") {
          refuse("stream-unsupported-configuration");
        }
      }
    } else refuse("stream-unsupported-configuration");
    this.#verbatim();
  }

  #command(): void {
    const command = this.#u(2);
    const length = this.#u(2);
    if (command === 0 || command > 11) refuse("stream-unknown-command");
    if (command === 8) refuse("stream-unsupported-command");
    if (FIXED_PAYLOADS[command]?.includes(length) === false) refuse("stream-bad-command");
    const payload = this.#take(length);
    if (command === 6 && !isDiscard(payload)) refuse("stream-bad-command");
    if (command === 10 && payload[0] !== length - 1) refuse("stream-bad-command");
    if ([4, 5, 9, 10].includes(command)) refuse("stream-unexpected-record");
    if (command === 3) this.#advise(payload);
    if (command === 6 || command === 7) {
      const isDue = this.#ramId !== null && this.#summary !== 0n && !this.#packaged;
      if (!isDue) refuse("stream-unexpected-record");
    }
    if (command === 6) this.#discard(payload);
    if (command === 7 && payload.readUInt32BE(0) > 2 ** 26) refuse("stream-over-limit");
    if (command === 7 && payload.readUInt32BE(0) < 10) refuse("stream-bad-package");
    this.recorder.command(command, payload);
    this.#verbatim();
    if (command === 7) this.#package(payload.readUInt32BE(0));
  }

  #advise(payload: Buffer): void {
    if (this.#ramId !== null || this.#summary !== 0n) refuse("stream-unexpected-record");
    if (payload.length === 0) return;
    this.#summary = payload.readBigUInt64BE(0);
    if (this.#summary === 0n || payload.readBigUInt64BE(8) !== 4096n) refuse("stream-bad-command");
  }

  #discard(payload: Buffer): void {
    const name = payload.toString("latin1", 2, 2 + payload[1]!);
    const block = this.#blocks.find((each) => each.name === name);
    if (block === undefined) return refuse("stream-unknown-block");
    const unit = BigInt(block.hostPageBytes ?? 4096);
    for (let at = 3 + payload[1]!; at < payload.length; at += 16) {
      const [start, length] = [payload.readBigUInt64BE(at), payload.readBigUInt64BE(at + 8)];
      const isGood = start % unit === 0n && length % unit === 0n && length > 0n;
      if (!isGood || start + length > BigInt(block.lengthBytes)) refuse("stream-bad-command");
    }
  }

  #package(length: number): void {
    const end = this.#at + length;
    this.#packaged = true;
    if (this.#take(5).toString("hex") !== "0800040000") refuse("stream-bad-package");
    this.#verbatim();
    const devices = this.#stream.subarray(this.#at, end - 5);
    if (devices.length > 0) this.recorder.verbatim(devices);
    this.#take(length - 10);
    this.#recordAt = this.#at;
    if (this.#take(5).toString("hex") !== "0800050000") refuse("stream-bad-package");
    this.#verbatim();
    this.recorder.packageEnd();
  }

  #otherSection(): string {
    this.#u(4);
    this.#take(this.#u(1) + 4);
    return "stream-unsupported-section";
  }

  #start(): void {
    const id = this.#u(4);
    const head = this.#take(this.#u(1) + 8).toString("latin1");
    if (!/^ram\0{4}.{4}$/s.test(head)) refuse("stream-unsupported-section");
    if (!head.endsWith("\0\0\0\x04")) refuse("stream-ram-version");
    const total = this.#int(8);
    if (total % 4096n !== 4n || total === 4n) refuse("stream-bad-block-list");
    if (total > 2n ** 50n + 4n) refuse("stream-over-limit");
    const blocks: RamBlock[] = [];
    for (let left = total - 4n; left > 0n;) {
      if (blocks.length === 256) refuse("stream-over-limit");
      const length = this.#u(1);
      if (length === 0) refuse("stream-bad-block-list");
      const nameAndBytes = this.#take(length + 8);
      const bytes = nameAndBytes.readBigUInt64BE(length);
      if (bytes > left || bytes % 4096n !== 0n) refuse("stream-bad-block-list");
      left -= bytes;
      const name = nameAndBytes.toString("latin1", 0, length);
      if (blocks.some((block) => block.name === name)) refuse("stream-bad-block-list");
      const hostPage = this.#hostPage(left === 0n);
      const block = { name, lengthBytes: Number(bytes) };
      blocks.push(hostPage === null ? block : { ...block, hostPageBytes: Number(hostPage) });
    }
    if (this.#int(8) !== 16n) refuse("stream-bad-block-list");
    this.#footer(id);
    if (this.#ramId !== null) refuse("stream-unexpected-record");
    this.#verbatim();
    this.#ramId = id;
    this.#blocks = blocks;
    this.recorder.ramStart({ sectionId: id, blocks });
    this.recorder.partEnd();
  }

  #hostPage(isLast: boolean): bigint | null {
    const peeked = this.#take(isLast ? 8 : 1);
    this.#at -= peeked.length;
    if (isLast ? peeked.readBigUInt64BE() % 4096n !== 0n : peeked[0] !== 0) return null;
    const bytes = this.#int(8);
    const isPowerOfTwo = bytes > 0n && (bytes & (bytes - 1n)) === 0n;
    if (!isPowerOfTwo || bytes <= 4096n || (bytes & this.#summary) === 0n) {
      refuse("stream-bad-block-list");
    }
    return bytes;
  }

  #footer(id: number): void {
    if (this.#int(5) !== 0x7e00000000n + BigInt(id)) refuse("stream-bad-footer");
  }

  #body(): void {
    const id = this.#u(4);
    if (id !== this.#ramId) refuse("stream-unknown-section");
    while (this.#ramRecord());
    this.#footer(id);
    this.#recordAt = this.#at;
    this.recorder.partEnd();
  }

  #ramRecord(): boolean {
    const address = this.#int(8);
    const flags = Number(address % 4096n);
    const page = Number(address / 4096n);
    if (address === 16n) return false;
    if (![0x08, 0x28, 0x02, 0x22].includes(flags)) refuse("stream-unsupported-flag");
    const isZero = (flags & 2) !== 0;
    const isContinued = (flags & 0x20) !== 0;
    const name = isContinued ? null : this.#text(this.#u(1));
    const fill = isZero ? this.#u(1) : 0;
    if (name !== null) {
      const index = this.#blocks.findIndex((block) => block.name === name);
      if (index < 0) refuse("stream-unknown-block");
      this.#lastBlock = index;
    }
    if (this.#lastBlock === null) return refuse("stream-no-block");
    if (page >= this.#blocks[this.#lastBlock]!.lengthBytes / 4096) {
      refuse("stream-page-out-of-range");
    }
    if (fill !== 0) refuse("stream-zero-fill");
    if (isZero) this.recorder.zeroPage(this.#lastBlock, page);
    else this.recorder.page(this.#lastBlock, page, this.#take(4096), 0);
    return true;
  }
}

/** Version 0, a name closed by zero, and whole ranges that end below 2^53. */
function isDiscard(payload: Buffer): boolean {
  if (payload.length < 3 || payload[0] !== 0) return false;
  const ranges = payload.subarray(3 + payload[1]!);
  if (payload.length < 3 + payload[1]! || ranges.length % 16 !== 0) return false;
  if (payload[2 + payload[1]!] !== 0) return false;
  for (let at = 0; at < ranges.length; at += 16) {
    const end = ranges.readBigUInt64BE(at) + ranges.readBigUInt64BE(at + 8);
    if (end > 2n ** 53n - 1n) return false;
  }
  return true;
}
