import { digest, type StreamEvent } from "./naive-stream.ts";
import type { RamSection } from "./ram-block.ts";
import { StreamDecoder } from "./stream-decoder.ts";
import { StreamError, type StreamErrorDetail } from "./stream-error.ts";
import type { StreamHandler } from "./stream-grammar.ts";
import type { StreamLimits } from "./stream-limits.ts";

/** For tests: writes down what a decoder reports, in the form of the naive twin's events. */
export class StreamRecorder implements StreamHandler {
  readonly events: StreamEvent[] = [];
  /** Buffers in which pages were reported, in order. */
  readonly pageBuffers: Buffer[] = [];

  page(block: number, page: number, buffer: Buffer, offset: number): void {
    this.pageBuffers.push(buffer);
    this.events.push(["page", block, page, digest(buffer.subarray(offset, offset + 4096))]);
  }

  zeroPage(block: number, page: number): void {
    this.events.push(["zero-page", block, page]);
  }

  /** Pieces that follow one another are one event: where they are cut says nothing. */
  verbatim(bytes: Uint8Array): void {
    this.#append("verbatim", bytes);
  }

  command(command: number, payload: Uint8Array): void {
    this.events.push(["command", command, Buffer.from(payload).toString("hex")]);
  }

  packageEnd(): void {
    this.events.push(["package-end"]);
  }

  ramStart({ sectionId, blocks }: RamSection): void {
    this.events.push(["ram-start", sectionId, JSON.stringify(blocks)]);
  }

  partEnd(): void {
    this.events.push(["part-end"]);
  }

  ramEnd(): void {
    this.events.push(["ram-end"]);
  }

  deviceState(bytes: Uint8Array): void {
    this.#append("device-state", bytes);
  }

  #append(kind: "verbatim" | "device-state", bytes: Uint8Array): void {
    const hex = Buffer.from(bytes).toString("hex");
    const last = this.events.at(-1);
    if (last?.[0] !== kind) this.events.push([kind, hex]);
    else this.events[this.events.length - 1] = [kind, last[1] + hex];
  }
}

/** Decodes a stream that is whole. */
export function recordStream(
  pieces: readonly Buffer[],
  limits: Partial<StreamLimits> = {},
): StreamRecorder {
  const recorder = new StreamRecorder();
  const decoder = new StreamDecoder(recorder, limits);
  for (const piece of pieces) decoder.push(piece);
  decoder.end();
  return recorder;
}

/** Why a stream, or something else of the codec's, is refused. */
export function refusalOf(run: () => unknown): StreamErrorDetail {
  try {
    run();
  } catch (error) {
    if (error instanceof StreamError) return error.detail;
    throw error;
  }
  throw new Error("it was accepted");
}

export function refusalOfStream(
  stream: Buffer,
  limits: Partial<StreamLimits> = {},
): StreamErrorDetail {
  return refusalOf(() => recordStream([stream], limits));
}
