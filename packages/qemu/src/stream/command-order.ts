import type { RamBlock } from "./ram-block.ts";
import { badCommand, COMMAND, commandName, decodeRamDiscard } from "./stream-command.ts";
import { PAGE_BYTES } from "./stream-format.ts";
import { StreamError, unexpectedRecord } from "./stream-error.ts";

/*
 * Which command may come when, on a connection that begins a migration:
 *
 *   OPEN_RETURN_PATH  PING  [POSTCOPY_ADVISE]  START of ram  PARTs
 *   [SWITCHOVER_START]  [*POSTCOPY_RAM_DISCARD  PING  PACKAGED  PING  PARTs]  END of ram
 *
 * and on one that takes up an interrupted post-copy, which has no header:
 *
 *   *RECV_BITMAP  POSTCOPY_RESUME  PARTs  END of ram
 *
 * LISTEN and RUN stand inside the package only. PING and SWITCHOVER_START may come at any time.
 */
export class CommandOrder {
  readonly #resumes: boolean;
  #hostPageSizes = 0;
  #packaged = false;
  #resumed = false;
  readonly #askedBlocks = new Set<string>();

  constructor(resumes: boolean) {
    this.#resumes = resumes;
  }

  /** The OR of all host page sizes that ADVISE announced; 0 without post-copy. */
  get hostPageSizes(): number {
    return this.#hostPageSizes;
  }

  /** Pages may come: not between the request for bitmaps and the word that post-copy goes on. */
  get mayHavePages(): boolean {
    return !this.#resumes || this.#resumed;
  }

  /** Refuses a command that does not belong here. `blocks` is null before RAM was announced. */
  check(command: number, payload: Buffer, blocks: readonly RamBlock[] | null): void {
    if (command === COMMAND.PING || command === COMMAND.SWITCHOVER_START) return;
    if (this.#resumes) this.#checkResumed(command, payload, blocks ?? []);
    else this.#checkFirst(command, payload, blocks);
  }

  #checkFirst(command: number, payload: Buffer, blocks: readonly RamBlock[] | null): void {
    switch (command) {
      case COMMAND.OPEN_RETURN_PATH:
        return;
      case COMMAND.POSTCOPY_ADVISE:
        if (blocks !== null || this.#hostPageSizes !== 0) throw unexpected(command);
        this.#advise(payload);
        return;
      case COMMAND.POSTCOPY_RAM_DISCARD:
        if (blocks === null || !this.#mayPackage) throw unexpected(command);
        checkDiscard(payload, blocks);
        return;
      case COMMAND.PACKAGED:
        if (blocks === null || !this.#mayPackage) throw unexpected(command);
        this.#packaged = true;
        return;
      default:
        throw unexpected(command);
    }
  }

  #checkResumed(command: number, payload: Buffer, blocks: readonly RamBlock[]): void {
    if (this.#resumed) throw unexpected(command);
    if (command === COMMAND.POSTCOPY_RESUME) {
      this.#resumed = true;
      return;
    }
    if (command !== COMMAND.RECV_BITMAP) throw unexpected(command);
    const name = payload.toString("latin1", 1);
    if (!blocks.some((block) => block.name === name)) throw unknownBlock(name);
    // One answer a block: each is as large as a bitmap of it.
    if (this.#askedBlocks.has(name)) throw unexpected(command);
    this.#askedBlocks.add(name);
  }

  get #mayPackage(): boolean {
    return this.#hostPageSizes !== 0 && !this.#packaged;
  }

  /** Empty: post-copy of dirty bitmaps alone, which brings no package. */
  #advise(payload: Buffer): void {
    if (payload.length === 0) return;
    const sizes = payload.readUInt32BE(0) * 0x100000000 + payload.readUInt32BE(4);
    const target = payload.readUInt32BE(8) * 0x100000000 + payload.readUInt32BE(12);
    if (target !== PAGE_BYTES || sizes === 0) {
      const why = `pages of ${target} bytes, host pages ${sizes}`;
      throw badCommand("POSTCOPY_ADVISE", payload.length, why);
    }
    this.#hostPageSizes = sizes;
  }
}

/** Refuses ranges that are not whole pages of a block that was announced. */
function checkDiscard(payload: Buffer, blocks: readonly RamBlock[]): void {
  const { block: name, ranges } = decodeRamDiscard(payload);
  const block = blocks.find((each) => each.name === name);
  if (block === undefined) throw unknownBlock(name);
  const pageBytes = block.hostPageBytes ?? PAGE_BYTES;
  for (const { startBytes, lengthBytes } of ranges) {
    const isWhole = startBytes % pageBytes === 0 && lengthBytes % pageBytes === 0;
    const isInside = startBytes + lengthBytes <= block.lengthBytes;
    if (isWhole && isInside && lengthBytes > 0) continue;
    const why = `${lengthBytes} bytes from ${startBytes} of ${name}`;
    throw badCommand("POSTCOPY_RAM_DISCARD", payload.length, why);
  }
}

function unexpected(command: number): StreamError {
  return unexpectedRecord(commandName(command));
}

function unknownBlock(name: string): StreamError {
  return new StreamError(`a command for block "${name}", which was not announced`, {
    code: "stream-unknown-block",
    name,
  });
}
