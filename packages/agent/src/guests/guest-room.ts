/** The host's memory, and names: what guests that are being started have, and what is left. */
import type { GuestDefinition, ProblemCode } from "@vmferry/protocol";
import { ProblemError } from "../problem-error.ts";

/** QEMU itself, its threads and buffers, beside the guest's memory. */
const QEMU_OVERHEAD_BYTES = 64 * 1024 * 1024;

export interface RoomCodes {
  readonly exists: ProblemCode;
  readonly memory: ProblemCode;
}

/** Guests that are there: of which QEMU runs, or may. */
export interface PresentGuests {
  has(name: string): boolean;
  memoryBytes(): number;
}

export class GuestRoom {
  readonly #present: PresentGuests;
  readonly #guestMemoryBytesMax: number | null;
  /** Names whose QEMU is being started, with their memory. */
  readonly #starting = new Map<string, number>();

  /** `guestMemoryBytesMax`: null = what the host has free. */
  constructor(present: PresentGuests, guestMemoryBytesMax: number | null) {
    this.#present = present;
    this.#guestMemoryBytesMax = guestMemoryBytesMax;
  }

  /** Throws when the name is taken or the memory is not there. */
  reserve({ name, memoryBytes }: GuestDefinition, codes: RoomCodes): void {
    this.refuseName(name, codes.exists);
    this.refuseMemory({ name, memoryBytes }, codes.memory);
    this.#starting.set(name, memoryBytes);
  }

  /** For a guest that has its memory already. Throws when the name is taken. */
  reserveName(name: string): void {
    this.refuseName(name, "guest-exists");
    this.#starting.set(name, 0);
  }

  release(name: string): void {
    this.#starting.delete(name);
  }

  isStarting(name: string): boolean {
    return this.#starting.has(name);
  }

  refuseName(name: string, code: ProblemCode): void {
    if (!this.#starting.has(name) && !this.#present.has(name)) return;
    throw new ProblemError(`There is a guest ${name} on this host.`, { code });
  }

  refuseMemory(
    { name, memoryBytes }: Pick<GuestDefinition, "name" | "memoryBytes">,
    code: ProblemCode,
  ): void {
    const free = this.#freeBytes();
    if (memoryBytes + QEMU_OVERHEAD_BYTES <= free) return;
    throw new ProblemError(
      `Guest ${name} needs ${memoryBytes + QEMU_OVERHEAD_BYTES} bytes of memory with its QEMU; ` +
        `this host has ${Math.max(0, free)} for guests.`,
      { code },
    );
  }

  #freeBytes(): number {
    const starting = [...this.#starting.values()].reduce((sum, bytes) => sum + bytes, 0);
    const free = process.availableMemory() - starting;
    if (this.#guestMemoryBytesMax === null) return free;
    return Math.min(free, this.#guestMemoryBytesMax - this.#present.memoryBytes() - starting);
  }
}
