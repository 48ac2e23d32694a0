/**
 * The directory that both hosts mount, for their witness: its server has all of it, and each call of
 * an agent takes its time, hangs while the server does not answer, or fails although it was done.
 */
import { LateWitness, type WitnessPort } from "../../packages/agent/src/index.ts";
import { errnoError } from "../../packages/agent/src/witness/errno-error.ts";
import { Witness } from "../../packages/agent/src/witness/witness.ts";
import type { FileFacts, WitnessFiles } from "../../packages/agent/src/witness/witness-files.ts";
import type { Life } from "./life.ts";
import type { Random } from "./random.ts";
import type { Scheduler } from "./scheduler.ts";

export const SHARED_DIRECTORY = "/share";
/** By who keeps the files. */
const UID = 1000;

interface Inode {
  readonly number: bigint;
  readonly bytes: Buffer | null;
  readonly modifiedMs: number;
  links: number;
}

export class Share {
  /** Answers of the server that get lost: the call fails, whatever was done. */
  failures = 0;
  #hangsUntilMs = 0;
  readonly #scheduler: Scheduler;
  readonly #random: Random;
  readonly #names = new Map<string, Inode>();
  #inodes = 0n;

  constructor(scheduler: Scheduler, random: Random) {
    this.#scheduler = scheduler;
    this.#random = random;
    this.#add(SHARED_DIRECTORY, null);
  }

  hangFor(ms: number): void {
    this.#hangsUntilMs = Math.max(this.#hangsUntilMs, this.#scheduler.nowMs + ms);
  }

  /** The server answers, and every call does what it says. */
  mend(): void {
    this.#hangsUntilMs = 0;
    this.failures = 0;
  }

  /** As an agent has it from its start on. */
  witnessOf(life: Life): WitnessPort {
    const options = { files: this.#filesOf(life), clock: life.clock };
    return new LateWitness(SHARED_DIRECTORY, (directory) => Witness.open(directory, options));
  }

  #filesOf(life: Life): WitnessFiles {
    const call = <T>(name: string, act: () => T): Promise<T> => this.#call({ life, name, act });
    return {
      makeDirectory: (path) =>
        call("mkdir", () => {
          if (!this.#names.has(path)) this.#add(path, null);
        }),
      create: (path, bytes) =>
        call("create", () => {
          if (this.#names.has(path)) throw errnoError("EEXIST");
          this.#add(path, Buffer.from(bytes));
        }),
      link: (path, newPath) =>
        call("link", () => {
          const inode = this.#at(path);
          if (this.#names.has(newPath)) throw errnoError("EEXIST");
          this.#names.set(newPath, inode);
          inode.links += 1;
        }),
      rename: (path, newPath) =>
        call("rename", () => {
          const inode = this.#at(path);
          this.#names.delete(path);
          this.#remove(newPath);
          this.#names.set(newPath, inode);
        }),
      remove: (path) =>
        call("remove", () => {
          this.#remove(path);
        }),
      inspect: (path) => call("inspect", () => factsOf(this.#names.get(path))),
      read: (path) => call("read", () => this.#names.get(path)?.bytes ?? null),
      list: (directory) =>
        call("list", () =>
          [...this.#names.keys()]
            .filter((name) => name.startsWith(`${directory}/`))
            .map((name) => name.slice(directory.length + 1)),
        ),
      syncDirectory: () => call("sync", () => undefined),
    };
  }

  /** What was sent to the server is done by it, also when the agent has died since. */
  #call<T>(asked: {
    readonly life: Life;
    readonly name: string;
    readonly act: () => T;
  }): Promise<T> {
    const { life, name, act } = asked;
    return new Promise((resolve, reject) => {
      if (!life.port(`${life.side} share ${name}`)) return;
      const serve = (): void => {
        const waitMs = this.#hangsUntilMs - this.#scheduler.nowMs;
        if (waitMs > 0) {
          this.#scheduler.after(waitMs, serve);
          return;
        }
        const isLost = this.failures > 0;
        if (isLost) this.failures -= 1;
        try {
          const value = isLost && this.#random.chance(0.5) ? null : { is: act() };
          life.later(this.#delayMs, () => {
            if (isLost || value === null) reject(errnoError("EIO"));
            else resolve(value.is);
          });
        } catch (error) {
          life.later(this.#delayMs, () => {
            reject(error instanceof Error ? error : new Error(String(error)));
          });
        }
      };
      this.#scheduler.after(this.#delayMs, serve);
    });
  }

  #add(path: string, bytes: Buffer | null): void {
    this.#inodes += 1n;
    const modifiedMs = this.#scheduler.nowMs;
    this.#names.set(path, { number: this.#inodes, bytes, modifiedMs, links: 1 });
  }

  #at(path: string): Inode {
    const inode = this.#names.get(path);
    if (inode === undefined) throw errnoError("ENOENT");
    return inode;
  }

  #remove(path: string): void {
    const inode = this.#names.get(path);
    if (inode === undefined) return;
    inode.links -= 1;
    this.#names.delete(path);
  }

  get #delayMs(): number {
    return this.#random.spread(0.05, 3);
  }
}

function factsOf(inode: Inode | undefined): FileFacts | null {
  if (inode === undefined) return null;
  const { number, bytes, links, modifiedMs } = inode;
  const kind = bytes === null ? "directory" : "file";
  return { kind, inode: number, linkCount: links, mode: 0o700, uid: UID, modifiedMs };
}
