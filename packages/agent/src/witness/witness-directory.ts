/**
 * How a witness uses its directory, without regard to time: `witness.ts` says what for.
 *
 *   <sharedDir>/vmferry-witness/                      for the agents' user alone
 *     <migrationId>.<epoch>.<generation>.decision     of a stun: taken or revoked, for ever
 *     <migrationId>.proof                             by which the peer knows the directory
 *     <uuid>.tmp                                      what is being written, or a crash left
 *
 *   - A decision is written to a file of its own, made durable, and gets its name by link(2): the
 *     first one does, whole, and no other after it.
 *   - Nothing is decided in a directory without the proof of the migration. Where the share is not
 *     mounted, say after a boot, its mount point is another directory, and a decision there would
 *     be a second first one. Therefore, too, a decision is never removed before its proof.
 */
import { timingSafeEqual } from "node:crypto";
import { join } from "node:path";
import { sameStun, type StunRef } from "@vmferry/protocol";
import {
  decodeDecision,
  DECISION_BYTES_MAX,
  encodeDecision,
  type Decision,
  type DecisionRecord,
} from "./decision-codec.ts";
import { asWitnessError, witnessDamaged, type WitnessError } from "./witness-error.ts";
import type { WitnessFiles } from "./witness-files.ts";
import { DECISION_NAME, decisionName, newName, proofName } from "./witness-names.ts";

const WRITABLE_BY_OTHERS = 0o022;

export class WitnessDirectory {
  readonly path: string;
  readonly #sharedDir: string;
  readonly #files: WitnessFiles;

  constructor(sharedDir: string, files: WitnessFiles) {
    this.path = join(sharedDir, "vmferry-witness");
    this.#sharedDir = sharedDir;
    this.#files = files;
  }

  /** Makes it where there is none. Rejects where it, or its file system, is not fit for this. */
  async prepare(): Promise<void> {
    await this.#files.makeDirectory(this.path);
    await this.#files.syncDirectory(this.#sharedDir);
    const facts = await this.#files.inspect(this.path);
    if (facts?.kind !== "directory") throw new Error("it is no directory");
    if ((facts.mode & WRITABLE_BY_OTHERS) !== 0) throw new Error("others may write to it");
    await this.#withNew(Buffer.alloc(0), async (newPath) => {
      // A server may give all files to one user, so that this process's own number says nothing.
      const owner = (await this.#files.inspect(newPath))?.uid;
      if (owner !== facts.uid) throw new Error("it is another user's");
      const secondPath = this.#at(newName());
      try {
        const obstacle = await this.#link(newPath, secondPath);
        if (obstacle !== null) throw obstacle;
        await this.#files.syncDirectory(this.path);
      } finally {
        await this.#discard(secondPath);
      }
    });
  }

  /** What stands then. An aborted signal keeps it from deciding, where that is not done yet. */
  async decide(record: DecisionRecord, signal: AbortSignal): Promise<Decision> {
    const obstacle = await this.#attempt(record, encodeDecision(record), signal);
    if (obstacle === null) {
      await this.#files.syncDirectory(this.path);
      return record.decision;
    }
    const standing = await this.look(record);
    if (standing === null) throw obstacle;
    return standing;
  }

  async look(stun: StunRef): Promise<Decision | null> {
    const path = this.#at(decisionName(stun));
    // An NFS client remembers for a while that a name was not there.
    await this.#files.syncDirectory(this.path);
    const bytes = await this.#files.read(path, DECISION_BYTES_MAX);
    if (bytes === null) return null;
    const record = decodeDecision(bytes);
    if (record === null) throw witnessDamaged(path, "it is no decision that this agent can read");
    if (!sameStun(record, stun)) throw witnessDamaged(path, "it is about another stun");
    // Whoever made it may not have come that far.
    await this.#files.syncDirectory(this.path);
    return record.decision;
  }

  async prove(migrationId: string, proof: string): Promise<void> {
    const path = this.#at(proofName(migrationId));
    await this.#withNew(Buffer.from(proof), async (newPath) => {
      await this.#files.rename(newPath, path);
      await this.#files.syncDirectory(this.path);
    });
  }

  async sees(migrationId: string, proof: string): Promise<boolean> {
    const expected = Buffer.from(proof);
    await this.#files.syncDirectory(this.path);
    const seen = await this.#files.read(this.#at(proofName(migrationId)), expected.length);
    return seen?.length === expected.length && timingSafeEqual(seen, expected);
  }

  async forget(migrationId: string): Promise<void> {
    await this.#files.remove(this.#at(proofName(migrationId)));
  }

  async list(countMax: number): Promise<string[]> {
    return await this.#files.list(this.path, countMax);
  }

  /** By the clock that the files have their times of: this host's may be years ahead. */
  async nowMs(): Promise<number> {
    return await this.#withNew(Buffer.alloc(0), async (newPath) => {
      const facts = await this.#files.inspect(newPath);
      if (facts === null) throw new Error("a new file is not there");
      return facts.modifiedMs;
    });
  }

  /** Returns whether it did. A decision stays as long as its proof. */
  async removeOld(name: string, beforeMs: number): Promise<boolean> {
    const facts = await this.#files.inspect(this.#at(name));
    if (facts?.kind !== "file" || facts.modifiedMs >= beforeMs) return false;
    const migrationId = DECISION_NAME.exec(name)?.[1];
    if (migrationId !== undefined) {
      const proof = await this.#files.inspect(this.#at(proofName(migrationId)));
      if (proof !== null) return false;
    }
    await this.#files.remove(this.#at(name));
    return true;
  }

  async sync(): Promise<void> {
    await this.#files.syncDirectory(this.path);
  }

  /** Null where the decision has its name; otherwise what is in the way. */
  async #attempt(stun: StunRef, bytes: Buffer, signal: AbortSignal): Promise<WitnessError | null> {
    try {
      await this.#requireProof(stun.migrationId);
      return await this.#withNew(bytes, async (newPath) => {
        signal.throwIfAborted();
        return await this.#link(newPath, this.#at(decisionName(stun)));
      });
    } catch (error) {
      return asWitnessError(this.path, error);
    }
  }

  async #requireProof(migrationId: string): Promise<void> {
    const proof = await this.#files.inspect(this.#at(proofName(migrationId)));
    if (proof?.kind !== "file")
      throw new Error(`the proof of migration ${migrationId} is not there`);
  }

  /**
   * Null where the file has both names; otherwise what is in the way. Only the file's own count of
   * names says so: NFS repeats a request whose answer was lost, and then tells of EEXIST, or of an
   * error, where the link was made. A backup may have made one as well, so the name has to agree.
   */
  async #link(newPath: string, path: string): Promise<WitnessError | null> {
    let obstacle: unknown = new Error("a file there cannot have two names");
    try {
      await this.#files.link(newPath, path);
    } catch (error) {
      obstacle = error;
    }
    const own = await this.#files.inspect(newPath);
    const named = own?.linkCount === 2 ? await this.#files.inspect(path) : null;
    return named !== null && named.inode === own?.inode
      ? null
      : asWitnessError(this.path, obstacle);
  }

  async #withNew<T>(bytes: Buffer, use: (newPath: string) => Promise<T>): Promise<T> {
    const newPath = this.#at(newName());
    try {
      await this.#files.create(newPath, bytes);
      return await use(newPath);
    } finally {
      await this.#discard(newPath);
    }
  }

  /** A new file that stays does no harm, and goes some day. */
  async #discard(path: string): Promise<void> {
    await this.#files.remove(path).catch(() => undefined);
  }

  #at(name: string): string {
    return join(this.path, name);
  }
}
