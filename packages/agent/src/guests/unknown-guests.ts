/**
 * Guests of an earlier life of which nothing can be told: their QEMU does not answer, or their record
 * cannot be read. Their names and their memory stay theirs, and nobody may do anything with them.
 */
import { join } from "node:path";
import type { GuestObject } from "@vmferry/protocol";
import { ProblemError } from "../problem-error.ts";
import type { SilentGuest } from "./earlier-guests.ts";
import { silentObject, silentText } from "./silent-doubt.ts";
import { unreadableDoubt, unreadableObject } from "./unreadable-guests.ts";

export class UnknownGuests {
  readonly #guestsDir: string;
  /** By their names. */
  readonly #silent = new Map<string, SilentGuest>();
  /** Names, and nothing else is known of them. */
  #unreadable: readonly string[] = [];

  /** `guestsDir` has a directory for each guest. */
  constructor(guestsDir: string) {
    this.#guestsDir = guestsDir;
  }

  has(name: string): boolean {
    return this.#silent.has(name) || this.#unreadable.includes(name);
  }

  objects(): GuestObject[] {
    const silent = [...this.#silent.values()].map((each) => silentObject(each, this.#guestsDir));
    return [...silent, ...this.#unreadable.map(unreadableObject)];
  }

  object(name: string): GuestObject | null {
    return this.objects().find((each) => each.name === name) ?? null;
  }

  /** Throws `guest-in-doubt` for one of them. */
  refuse(name: string): void {
    const silent = this.#silent.get(name);
    if (silent !== undefined)
      throw new ProblemError(silentText(silent), { code: "guest-in-doubt" });
    if (this.#unreadable.includes(name)) throw unreadableDoubt(name, join(this.#guestsDir, name));
  }

  /** As far as that is known. */
  get memoryBytes(): number {
    const records = [...this.#silent.values()].map(({ record }) => record);
    return records.reduce((sum, { definition }) => sum + definition.memoryBytes, 0);
  }

  foundUnreadable(names: readonly string[]): void {
    this.#unreadable = names;
  }

  /** As it is shown until it answers, or is gone. */
  foundSilent(guest: SilentGuest): GuestObject {
    this.#silent.set(guest.record.definition.name, guest);
    return silentObject(guest, this.#guestsDir);
  }

  answered(name: string): void {
    this.#silent.delete(name);
  }
}
