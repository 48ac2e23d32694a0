/**
 * Finished migrations as files, so that they are still listed after the agent was restarted: one file
 * a migration, written once, when it has ended. Nothing waits for that, and nobody decides anything
 * by such a file: whose a guest is, the journals alone say.
 */
import { constants } from "node:fs";
import { mkdir, open, opendir, rm } from "node:fs/promises";
import { join } from "node:path";
import type { Logger } from "pino";
import { Compile } from "typebox/compile";
import { messageOf } from "@vmferry/core";
import {
  isFinalPhase,
  MigrationObjectSchema,
  type MigrationObject,
  type MigrationRole,
} from "@vmferry/protocol";
import { writeDurably } from "../durable-file.ts";

const FILE_VERSION = 1;
/** An object has some 2 KiB; only that of many disks and phases comes near this. */
const FILE_BYTES_MAX = 128 * 1024;
const FILE_NAME = /^([0-9a-zA-Z-]{1,64})\.json$/;
/** Left where the host went down amid a write. */
const TORN_NAME = /^[0-9a-zA-Z-]{1,64}\.json\.new$/;
/** As many as the configuration may ask for, and what they may take of memory together. */
const FILES_MAX = 100_000;
const ALL_BYTES_MAX = 256 * 1024 * 1024;
const READ_AT_ONCE = 16;
/** Writes that wait for a disk that has stopped answering. */
const WRITES_MAX = 1000;

const validator = Compile(MigrationObjectSchema);

export interface MigrationHistoryOptions {
  readonly role: MigrationRole;
  readonly stateDir: string;
  readonly logger: Logger;
}

export class MigrationHistory {
  readonly #options: MigrationHistoryOptions;
  readonly #directory: string;
  #readBytes = 0;
  #writes = 0;
  /** Of what is to be removed: no more than there were. */
  readonly #removals = new Set<string>();
  #last: Promise<void> = Promise.resolve();

  constructor(options: MigrationHistoryOptions) {
    this.#options = options;
    this.#directory = join(options.stateDir, "migrations");
  }

  /** What earlier lives have left, in no order. A file that is not right is logged and left out. */
  async read(): Promise<MigrationObject[]> {
    const found: MigrationObject[] = [];
    try {
      await mkdir(this.#directory, { recursive: true, mode: 0o700 });
      const ids = await this.#ids();
      for (let i = 0; i < ids.length; i += READ_AT_ONCE) {
        const some = ids.slice(i, i + READ_AT_ONCE).map((id) => this.#readOne(id));
        found.push(...(await Promise.all(some)).filter((one) => one !== null));
      }
    } catch (error) {
      const { logger } = this.#options;
      logger.error({ err: error, directory: this.#directory }, "earlier migrations are not listed");
    }
    return found;
  }

  /** Returns at once. */
  keep(object: MigrationObject): void {
    const { id: migrationId } = object;
    if (this.#writes >= WRITES_MAX) {
      const { logger } = this.#options;
      logger.warn({ migrationId }, "the migration is not written down: too many wait");
      return;
    }
    const text = `${JSON.stringify({ version: FILE_VERSION, migration: object })}\n`;
    this.#writes++;
    this.#enqueue(migrationId, async (path) => {
      this.#writes--;
      if (Buffer.byteLength(text) > FILE_BYTES_MAX) throw new Error("it is too large to be kept");
      await writeDurably(path, text);
    });
  }

  /** Returns at once. */
  drop(id: string): void {
    if (this.#removals.has(id) || this.#removals.size >= FILES_MAX) return;
    this.#removals.add(id);
    this.#enqueue(id, async (path) => {
      this.#removals.delete(id);
      await rm(path, { force: true });
    });
  }

  /** Resolves when everything so far is on the disk. */
  async idle(): Promise<void> {
    await this.#last;
  }

  #enqueue(migrationId: string, act: (path: string) => Promise<void>): void {
    this.#last = this.#last.then(async () => {
      try {
        await act(this.#pathOf(migrationId));
      } catch (error) {
        const { logger } = this.#options;
        const reason = messageOf(error);
        logger.warn({ migrationId, reason }, "the next life of the agent may not list it right");
      }
    });
  }

  async #ids(): Promise<string[]> {
    const ids: string[] = [];
    // The loop closes it, also when it is left.
    for await (const { name } of await opendir(this.#directory)) {
      if (ids.length === FILES_MAX) {
        const { logger } = this.#options;
        logger.warn({ directory: this.#directory }, "too many files: the rest is left out");
        break;
      }
      const id = FILE_NAME.exec(name)?.[1];
      if (id !== undefined) ids.push(id);
      else if (TORN_NAME.test(name)) await rm(join(this.#directory, name), { force: true });
    }
    return ids;
  }

  async #readOne(id: string): Promise<MigrationObject | null> {
    const path = this.#pathOf(id);
    try {
      const text = await readBounded(path, ALL_BYTES_MAX - this.#readBytes);
      this.#readBytes += text.length;
      return this.#checked(id, JSON.parse(text));
    } catch (error) {
      const { logger } = this.#options;
      logger.warn({ path, reason: messageOf(error) }, "the migration in this file is not listed");
      return null;
    }
  }

  #checked(id: string, value: unknown): MigrationObject {
    const { version, migration } = (value ?? {}) as Readonly<Record<string, unknown>>;
    if (version !== FILE_VERSION) throw new Error(`version is not ${FILE_VERSION}`);
    if (!validator.Check(migration)) {
      const [first] = validator.Errors(migration);
      throw new Error(`migration${first?.instancePath ?? ""} ${first?.message ?? "is not right"}`);
    }
    const object = migration as MigrationObject;
    if (object.id !== id) throw new Error("migration/id is not the file's name");
    if (object.role !== this.#options.role) throw new Error("migration/role is the other agent's");
    if (object.phases.some(({ at }) => Number.isNaN(Date.parse(at)))) {
      throw new Error("migration/phases has a date that is none");
    }
    const isEnded = isFinalPhase(object.phase) && object.phases.at(-1)?.phase === object.phase;
    if (!isEnded || (object.phase === "completed" ? object.result : object.error) === null) {
      throw new Error("migration/phase is not the end of one");
    }
    return object;
  }

  #pathOf(id: string): string {
    return join(this.#directory, `${id}.json`);
  }
}

async function readBounded(path: string, restBytes: number): Promise<string> {
  // Not by a link, and a pipe does not hold the agent up.
  const flags = constants.O_RDONLY | constants.O_NOFOLLOW | constants.O_NONBLOCK;
  const file = await open(path, flags);
  try {
    const stats = await file.stat();
    if (!stats.isFile()) throw new Error("it is no file");
    if (stats.size > FILE_BYTES_MAX) throw new Error(`it has more than ${FILE_BYTES_MAX} bytes`);
    if (stats.size > restBytes) throw new Error("the others have too many bytes already");
    const bytes = Buffer.alloc(stats.size);
    const { bytesRead } = await file.read(bytes, 0, bytes.length, 0);
    return bytes.toString("utf8", 0, bytesRead);
  } finally {
    await file.close();
  }
}
