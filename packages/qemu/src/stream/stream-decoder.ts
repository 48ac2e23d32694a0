import { assert } from "@vmferry/core";

import type { RamSection } from "./ram-block.ts";
import { StreamError, unexpectedRecord } from "./stream-error.ts";
import { StreamGrammar, type StreamHandler, type StreamPhase } from "./stream-grammar.ts";
import { DEFAULT_STREAM_LIMITS, type StreamLimits } from "./stream-limits.ts";
import type { Reading, Want } from "./stream-want.ts";

/**
 * Decodes what a source QEMU sends, chunk by chunk, and reports it while `push` runs: nothing is
 * queued, and what is kept between two chunks is at most one control record (some 70 KiB for a full
 * block list) and one page. A decoder that threw has failed for good: it throws the same again.
 */
export class StreamDecoder {
  readonly #handler: StreamHandler;
  readonly #grammar: StreamGrammar;
  readonly #reading: Reading<void>;
  #want: Want = { kind: "record", bytes: 0 };
  /** What is left of a "verbatim" want. */
  #verbatimBytes = 0;
  #deviceStateBytes = 0;
  #failure: { readonly cause: unknown } | null = null;
  #ended = false;

  /** @param resumed for a connection that takes up a post-copy: what the one before had announced */
  constructor(
    handler: StreamHandler,
    limits: Partial<StreamLimits> = {},
    resumed: RamSection | null = null,
  ) {
    this.#handler = handler;
    this.#grammar = new StreamGrammar(handler, { ...DEFAULT_STREAM_LIMITS, ...limits }, resumed);
    this.#reading = this.#grammar.run();
    this.#goOn();
  }

  get phase(): StreamPhase {
    if (this.#failure !== null) return "failed";
    return this.#ended ? "ended" : this.#grammar.phase;
  }

  push(chunk: Buffer): void {
    assert(!this.#ended, "nothing is pushed after the end of a stream");
    if (this.#failure !== null) throw this.#failure.cause;
    try {
      let at = 0;
      while (at < chunk.length) at = this.#feed(chunk, at);
    } catch (cause) {
      this.#failure = { cause };
      throw cause;
    }
  }

  /**
   * The stream was closed. Refuses one that stops short of device state, or with none of it; how
   * far device state goes only its loader knows.
   */
  end(): void {
    if (this.#failure !== null) throw this.#failure.cause;
    const phase = this.#grammar.phase;
    if (phase !== "complete" && this.#deviceStateBytes === 0) {
      const cause = new StreamError(`the stream was closed in phase ${phase}`, {
        code: "stream-truncated",
        phase,
      });
      this.#failure = { cause };
      throw cause;
    }
    this.#ended = true;
  }

  /** Gives the grammar of the chunk what it wants, and returns where that ends. */
  #feed(chunk: Buffer, at: number): number {
    const want = this.#want;
    switch (want.kind) {
      case "record": {
        const { record } = this.#grammar;
        const next = Math.min(chunk.length, at + want.bytes - record.unreadBytes);
        record.append(chunk, at, next);
        if (record.unreadBytes === want.bytes) this.#goOn();
        return next;
      }
      case "ram": {
        const ram = this.#grammar.ram;
        assert(ram !== null, "RAM records come after the RAM section's start");
        const next = ram.decode(chunk, at);
        if (ram.ended) this.#goOn();
        return next;
      }
      case "verbatim": {
        const next = Math.min(chunk.length, at + this.#verbatimBytes);
        this.#handler.verbatim(chunk.subarray(at, next));
        this.#verbatimBytes -= next - at;
        if (this.#verbatimBytes === 0) this.#goOn();
        return next;
      }
      case "rest":
        this.#deviceStateBytes += chunk.length - at;
        this.#handler.deviceState(chunk.subarray(at));
        return chunk.length;
      case "nothing":
        throw unexpectedRecord("anything behind EOF");
    }
  }

  /** Lets the grammar read what it has been given, up to the next want that needs bytes. */
  #goOn(): void {
    for (;;) {
      const step = this.#reading.next();
      assert(step.done !== true, "the grammar ends with a want for the rest");
      const want = step.value;
      this.#want = want;
      if (want.kind === "record" && want.bytes <= this.#grammar.record.unreadBytes) continue;
      if (want.kind === "verbatim") {
        this.#verbatimBytes = want.bytes;
        if (want.bytes === 0) continue;
      }
      return;
    }
  }
}
