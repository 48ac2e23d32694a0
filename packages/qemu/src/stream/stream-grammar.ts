import { CommandOrder } from "./command-order.ts";
import { checkPackageBytes, checkPackageEdge, PACKAGE_EDGE_BYTES } from "./package-edges.ts";
import type { RamBlock, RamSection } from "./ram-block.ts";
import { RamRecordDecoder, type RamRecordHandler } from "./ram-record-decoder.ts";
import { readFooter, readRamStart, refuseFullSection } from "./ram-section-start.ts";
import { RecordBuffer } from "./record-buffer.ts";
import { checkCommandHeader, checkCommandPayload, COMMAND } from "./stream-command.ts";
import { readConfiguration, readConfigurationSubsection } from "./stream-configuration.ts";
import { RECORD, STREAM_MAGIC, STREAM_VERSION } from "./stream-format.ts";
import { StreamError, unexpectedRecord } from "./stream-error.ts";
import { checkLimit, type StreamLimits } from "./stream-limits.ts";
import { unread, type Reading } from "./stream-want.ts";

/**
 * Where a stream is. `post-copy` begins with the package that carries the device state; a stream
 * that takes up a post-copy is in `recovery` until its source says that it goes on.
 */
export type StreamPhase =
  | "header"
  | "setup"
  | "pre-copy"
  | "recovery"
  | "post-copy"
  | "device-state"
  | "complete"
  | "ended"
  | "failed";

/** What the decoder reports, in stream order. Buffers are views valid only during the call. */
export interface StreamHandler extends RamRecordHandler {
  /**
   * Bytes that the destination must see as they are and at this point: header, configuration,
   * commands, section starts with the RAM block list. A whole record at a time; only what follows
   * PACKAGED comes in pieces.
   */
  verbatim(bytes: Uint8Array): void;
  /**
   * A command was read; its bytes go through `verbatim` next. Whoever owes the destination pages
   * that have to come before it (before PACKAGED, say) sends them now.
   */
  command?(command: number, payload: Uint8Array): void;
  /** The last byte of a package went through `verbatim`: what follows is post-copy. */
  packageEnd?(): void;
  /** The RAM section was announced: its START went through `verbatim` completely. */
  ramStart(section: RamSection): void;
  /** The body of a RAM section (START, PART or END) and its footer were read. */
  partEnd(): void;
  /** END of RAM is complete: every dirty page was reported. What follows is device state. */
  ramEnd(): void;
  /** Everything after END of RAM, opaque: device sections, EOF, the description; in post-copy EOF. */
  deviceState(bytes: Uint8Array): void;
}

/**
 * The stream's grammar as one straight reading: it asks for bytes with `yield` and is resumed when
 * they are there. Only control records pass through here; the pages of a section are one `yield`.
 */
export class StreamGrammar {
  readonly record = new RecordBuffer();
  phase: StreamPhase = "header";
  /** Decodes RAM records while the grammar wants "ram". */
  ram: RamRecordDecoder | null = null;
  readonly #handler: StreamHandler;
  readonly #limits: StreamLimits;
  readonly #order: CommandOrder;
  #sectionId = -1;
  #blocks: readonly RamBlock[] | null = null;

  /** @param resumed the RAM section of the connection before, for one that takes up a post-copy */
  constructor(handler: StreamHandler, limits: StreamLimits, resumed: RamSection | null) {
    this.#handler = handler;
    this.#limits = limits;
    this.#order = new CommandOrder(resumed !== null);
    if (resumed === null) return;
    this.#announce(resumed);
    this.phase = "recovery";
  }

  *run(): Reading<void> {
    if (this.phase === "header") yield* this.#header();
    const wasPostcopy = yield* this.#records();
    if (!wasPostcopy) yield { kind: "rest" };
    yield unread(1);
    const type = this.record.u8();
    if (type !== RECORD.EOF) throw unknownOrUnexpected(type);
    this.#handler.deviceState(this.record.bytes);
    this.record.clear();
    this.phase = "complete";
    yield { kind: "nothing" };
  }

  /** Up to END of RAM; true when the device state came in a package before. */
  *#records(): Reading<boolean> {
    let wasPostcopy = false;
    let previous: number | null = null;
    while (this.phase !== "device-state") {
      yield unread(1);
      const type = this.record.u8();
      yield* this.#anyRecord(type, previous);
      previous = type;
      wasPostcopy ||= this.phase === "post-copy";
    }
    return wasPostcopy;
  }

  *#header(): Reading<void> {
    yield unread(8);
    const magic = this.record.u32();
    const version = this.record.u32();
    if (magic !== STREAM_MAGIC) {
      throw new StreamError(`no migration stream: it begins with 0x${magic.toString(16)}`, {
        code: "stream-bad-magic",
        magic,
      });
    }
    if (version !== STREAM_VERSION) {
      throw new StreamError(`migration stream version ${version}, not ${STREAM_VERSION}`, {
        code: "stream-bad-version",
        version,
      });
    }
    this.#passOn();
    this.phase = "setup";
  }

  *#anyRecord(type: number, previous: number | null): Reading<void> {
    switch (type) {
      case RECORD.CONFIGURATION:
        if (previous !== null) throw unexpectedRecord("CONFIGURATION");
        yield* readConfiguration(this.record);
        this.#passOn();
        return;
      case RECORD.SUBSECTION:
        if (previous !== RECORD.CONFIGURATION && previous !== RECORD.SUBSECTION) {
          throw unexpectedRecord("SUBSECTION");
        }
        yield* readConfigurationSubsection(this.record);
        this.#passOn();
        return;
      case RECORD.COMMAND:
        yield* this.#command();
        return;
      case RECORD.START:
        yield* this.#start();
        return;
      case RECORD.PART:
        yield* this.#body();
        return;
      case RECORD.END:
        yield* this.#body();
        this.phase = "device-state";
        this.#handler.ramEnd();
        return;
      case RECORD.FULL:
        yield* refuseFullSection(this.record);
        return;
      default:
        throw unknownOrUnexpected(type);
    }
  }

  *#command(): Reading<void> {
    const record = this.record;
    yield unread(4);
    const command = record.u16();
    const payloadBytes = record.u16();
    checkCommandHeader(command, payloadBytes);
    yield unread(payloadBytes);
    const payload = record.view(payloadBytes);
    checkCommandPayload(command, payload);
    this.#order.check(command, payload, this.#blocks);
    if (command === COMMAND.PACKAGED) {
      yield* this.#package(payload);
      return;
    }
    this.#handler.command?.(command, payload);
    this.#passOn();
    if (command === COMMAND.POSTCOPY_RESUME) this.phase = "post-copy";
  }

  /** PACKAGED is followed by a nested stream of device state, whose length is its payload. */
  *#package(payload: Buffer): Reading<void> {
    const packagedBytes = payload.readUInt32BE(0);
    checkLimit("package", packagedBytes, this.#limits.packagedBytesMax);
    checkPackageBytes(packagedBytes);
    this.#handler.command?.(COMMAND.PACKAGED, payload);
    this.#passOn();
    yield* this.#packageEdge("begin");
    yield { kind: "verbatim", bytes: packagedBytes - 2 * PACKAGE_EDGE_BYTES };
    yield* this.#packageEdge("end");
    this.phase = "post-copy";
    this.#handler.packageEnd?.();
  }

  /** Checked before it is passed on. */
  *#packageEdge(edge: "begin" | "end"): Reading<void> {
    yield unread(PACKAGE_EDGE_BYTES);
    checkPackageEdge(edge, this.record.view(PACKAGE_EDGE_BYTES));
    this.#passOn();
  }

  *#start(): Reading<void> {
    const section = yield* readRamStart(this.record, {
      limits: this.#limits,
      hostPageSizes: this.#order.hostPageSizes,
    });
    if (this.ram !== null) throw unexpectedRecord("START of ram");
    this.#passOn();
    this.#announce(section);
    this.phase = "pre-copy";
    this.#handler.ramStart(section);
    this.#handler.partEnd();
  }

  #announce({ sectionId, blocks }: RamSection): void {
    this.#sectionId = sectionId;
    this.#blocks = blocks;
    this.ram = new RamRecordDecoder(blocks, this.#handler);
  }

  /** PART or END, behind its type byte. Its frame is the encoder's business, not the destination's. */
  *#body(): Reading<void> {
    yield unread(4);
    const sectionId = this.record.u32();
    if (sectionId !== this.#sectionId || this.ram === null) {
      throw new StreamError(`a part of section ${sectionId}, which was not announced`, {
        code: "stream-unknown-section",
        sectionId,
      });
    }
    if (!this.#order.mayHavePages) throw unexpectedRecord("a part of ram");
    this.record.clear();
    this.ram.begin();
    yield { kind: "ram" };
    yield* readFooter(this.record, sectionId);
    this.record.clear();
    this.#handler.partEnd();
  }

  #passOn(): void {
    this.#handler.verbatim(this.record.bytes);
    this.record.clear();
  }
}

function unknownOrUnexpected(recordType: number): StreamError {
  const known = Object.entries(RECORD).find(([, value]) => value === recordType);
  if (known !== undefined) return unexpectedRecord(known[0]);
  return new StreamError(`unknown record type 0x${recordType.toString(16)}`, {
    code: "stream-unknown-record",
    recordType,
  });
}
