/**
 * Who owns a guest, as one side wrote it down before it acted: an append-only file a guest and
 * side. `docs/decisions/0014-journal.md` says why it is as it is.
 *
 *   - `append` resolves when the record is durable, and not before it would survive the host.
 *   - A failed write or sync is the end: nothing is retried, for the kernel tells of a lost page
 *     once and then answers the next sync with success.
 *   - What was written is given back whole or not at all. The one exception is an append that never
 *     ended, which nobody was told of.
 *   - One program has it open at a time.
 */
import { randomUUID } from "node:crypto";
import { assert, failpoint, messageOf } from "@vmferry/core";
import type { MigrationRole } from "@vmferry/protocol";
import { FileStorage } from "./file-storage.ts";
import {
  encodeFrame,
  encodeHeader,
  frameCrc,
  HEADER_BYTES,
  JOURNAL_BYTES_MAX,
  type ChainLink,
  type JournalIdentity,
} from "./journal-codec.ts";
import { journalDamaged, JournalError, journalNotUsable } from "./journal-error.ts";
import {
  beginsAttempt,
  encodeRecord,
  isSettled,
  type EncodedRecord,
  type JournalRecordOf,
} from "./journal-record.ts";
import type { JournalStorage, StoredJournal } from "./journal-storage.ts";
import { readJournal, type JournalReading } from "./read-journal.ts";

/** A new attempt compacts a journal that is longer: of some two hundred records. */
const COMPACT_BYTES = 64 * 1024;
/** Somebody else's journal can appear between a look and the making of one, if only once. */
const ATTEMPTS_MAX = 3;

export interface OpenJournalOptions<R extends MigrationRole> {
  /** In a directory that is there, on a local file system, and whose name is durable. */
  readonly path: string;
  readonly identity: JournalIdentity<R>;
  readonly storage?: JournalStorage;
  readonly newIncarnation?: () => string;
  /** Told how long each record took to become durable. */
  readonly onSynced?: (seconds: number) => void;
}

export class Journal<R extends MigrationRole> {
  readonly path: string;
  readonly identity: JournalIdentity<R>;
  /** Made with the journal. Whoever answers under another one knows nothing of what this one did. */
  readonly incarnation: string;
  /** There was none before. Where there should have been one, its guest is for a person to judge. */
  readonly isNew: boolean;
  /** Of an append that never ended, cut off when this was opened. */
  readonly tornBytes: number;
  readonly #storage: JournalStorage;
  readonly #onSynced: (seconds: number) => void;
  #file: StoredJournal;
  #records: JournalRecordOf<R>[];
  #endBytes: number;
  #next: ChainLink;
  #turn: Promise<unknown> = Promise.resolve();
  #failure: { readonly cause: unknown } | null = null;
  #closed: Promise<void> | null = null;

  /**
   * The journal there is, or a new one. Rejects with `journal-locked`, `journal-damaged`,
   * `journal-too-new` or `journal-not-usable`, and then has changed nothing that was durable.
   */
  static async open<R extends MigrationRole>(options: OpenJournalOptions<R>): Promise<Journal<R>> {
    const { path, identity, newIncarnation = randomUUID } = options;
    const storage = options.storage ?? new FileStorage(path);
    for (let attempt = 0; attempt < ATTEMPTS_MAX; attempt++) {
      const found = await storage.open();
      if (found !== null) return await Journal.#takeOver({ ...options, storage }, found);
      const header = encodeHeader({ ...identity, incarnation: newIncarnation(), firstSeq: 1 });
      const file = await storage.create(header);
      if (file === null) continue;
      const reading = { ...readJournal(header, identity, path), isNew: true };
      return new Journal({ ...options, storage }, file, reading);
    }
    throw journalNotUsable(path, new Error("others keep making and removing it"));
  }

  static async #takeOver<R extends MigrationRole>(
    options: OpenJournalOptions<R> & { readonly storage: JournalStorage },
    file: StoredJournal,
  ): Promise<Journal<R>> {
    const { path, identity } = options;
    try {
      if (file.sizeBytes > JOURNAL_BYTES_MAX) {
        throw journalDamaged(path, `it is longer than ${JOURNAL_BYTES_MAX} bytes`);
      }
      const bytes = await file.read();
      const reading = readJournal(bytes, identity, path);
      if (reading.tornBytes > 0) await file.truncate(reading.endBytes);
      // Its last record may have reached the page cache alone, and after a failed sync the kernel
      // takes such a page for clean. Written again it is what a sync has to make durable.
      const { lastAt, endBytes } = reading;
      await file.write(bytes.subarray(lastAt, endBytes), lastAt);
      await file.datasync();
      return new Journal(options, file, { ...reading, isNew: false });
    } catch (cause) {
      await file.close().catch(() => undefined);
      throw cause instanceof JournalError ? cause : journalNotUsable(path, cause);
    }
  }

  private constructor(
    options: OpenJournalOptions<R> & { readonly storage: JournalStorage },
    file: StoredJournal,
    reading: JournalReading<R> & { readonly isNew: boolean },
  ) {
    this.path = options.path;
    this.identity = options.identity;
    this.incarnation = reading.incarnation;
    this.isNew = reading.isNew;
    this.tornBytes = reading.tornBytes;
    this.#storage = options.storage;
    this.#onSynced = options.onSynced ?? (() => undefined);
    this.#file = file;
    this.#records = [...reading.records];
    this.#endBytes = reading.endBytes;
    this.#next = reading.next;
  }

  /** The durable ones that the file holds, in order. */
  get records(): readonly JournalRecordOf<R>[] {
    return this.#records;
  }

  get last(): JournalRecordOf<R> | null {
    return this.#records.at(-1) ?? null;
  }

  /** For ever true once it is. */
  get failed(): boolean {
    return this.#failure !== null;
  }

  /**
   * Resolves when the record is durable. Records are written in the order of the calls. Rejects
   * with `journal-full`, or with `journal-failed`, which says whether the record may be found
   * nevertheless when the journal is opened again.
   */
  async append(record: JournalRecordOf<R>): Promise<void> {
    const own = structuredClone(record);
    const encoded = encodeRecord(this.identity.role, own);
    await this.#inTurn(async () => {
      const isDue = beginsAttempt(own) && this.#endBytes > COMPACT_BYTES;
      if (isDue && this.last !== null && isSettled(this.last)) await this.#rewrite(this.last);
      await this.#write(own.kind, encodeFrame(encoded, this.#next));
      this.#records.push(own);
    });
  }

  /**
   * Leaves the last record alone in the file, which has to settle what came before it. Appending
   * does that by itself where the journal became long. A failure is that of an append.
   */
  async compact(): Promise<void> {
    await this.#inTurn(async () => {
      const { last } = this;
      if (last === null || this.#records.length === 1) return;
      assert(isSettled(last), `a journal that ends with ${last.kind} is kept as it is`);
      await this.#rewrite(last);
    });
  }

  /** Resolves when what was asked for before is done, and the lock is gone. */
  close(): Promise<void> {
    this.#closed ??= this.#turn.then(() => this.#file.close());
    return this.#closed;
  }

  /**
   * As `close`, and the file is gone: nobody will ask for it any more. While it has its name it is
   * locked, so that whoever opens the guest's journal next makes a new one.
   */
  async remove(): Promise<void> {
    assert(this.#closed === null, "a journal that was closed may be somebody else's");
    const removed = this.#turn.then(() => this.#storage.remove());
    this.#closed = removed.catch(() => undefined).then(() => this.#file.close());
    await this.#closed;
    await removed;
  }

  async #inTurn(work: () => Promise<void>): Promise<void> {
    assert(this.#closed === null, "nothing is written to a journal that was closed");
    const done = this.#turn.then(async () => {
      if (this.#failure !== null) throw this.#failedError("no");
      await work();
    });
    this.#turn = done.catch(() => undefined);
    await done;
  }

  async #write(kind: string, frame: Buffer): Promise<void> {
    if (this.#endBytes + frame.length > JOURNAL_BYTES_MAX) {
      throw new JournalError(`the journal ${this.path} is full`, {
        code: "journal-full",
        path: this.path,
      });
    }
    // A part of the record is none: it is cut off when the journal is opened again.
    await this.#orFail("no", async () => {
      failpoint(`journal.${kind}.before`);
      await this.#file.write(frame, this.#endBytes);
    });
    await this.#orFail("unknown", async () => {
      failpoint(`journal.${kind}.written`);
      const startedMs = performance.now();
      await this.#file.datasync();
      this.#onSynced((performance.now() - startedMs) / 1000);
    });
    failpoint(`journal.${kind}.after`);
    this.#endBytes += frame.length;
    this.#next = { seq: this.#next.seq + 1, prevCrc: frameCrc(frame) };
  }

  async #rewrite(last: JournalRecordOf<R>): Promise<void> {
    const { incarnation, identity } = this;
    const firstSeq = this.#next.seq - 1;
    const header = encodeHeader({ ...identity, incarnation, firstSeq });
    const prevCrc = header.readUInt32BE(HEADER_BYTES - 4);
    const encoded: EncodedRecord = encodeRecord(identity.role, last);
    const frame = encodeFrame(encoded, { seq: firstSeq, prevCrc });
    await this.#orFail("no", async () => {
      const file = await this.#storage.replace(Buffer.concat([header, frame]));
      const replaced = this.#file;
      this.#file = file;
      await replaced.close();
    });
    this.#records = [last];
    this.#endBytes = header.length + frame.length;
    this.#next = { seq: this.#next.seq, prevCrc: frameCrc(frame) };
  }

  async #orFail(recorded: "no" | "unknown", work: () => Promise<void>): Promise<void> {
    try {
      await work();
    } catch (cause) {
      this.#failure = { cause };
      throw this.#failedError(recorded);
    }
  }

  #failedError(recorded: "no" | "unknown"): JournalError {
    const cause = this.#failure?.cause;
    return new JournalError(
      `nothing can be recorded in the journal ${this.path} any more: ${messageOf(cause)}`,
      { code: "journal-failed", path: this.path, recorded },
      { cause },
    );
  }
}
