import { constants } from "node:os";
import { writeFully } from "./descriptor-io.ts";
import { punchHole, zeroOutOnDevice, zeroRange, type ByteRange } from "./libc.ts";

const ZEROS = Buffer.alloc(2 ** 20);
/** A device without an own way of zeroing writes: not so long that a thread is gone for minutes. */
const DEVICE_PIECE_BYTES_MAX = 64 * 2 ** 20;

const { EINVAL, ENOSYS, ENOTTY, EOPNOTSUPP } = constants.errno;
const NEVER_SUPPORTED = [EOPNOTSUPP, ENOSYS, ENOTTY];

/**
 * Makes ranges read as zeros by the cheapest way that the file or device has: giving the space
 * back, marking it as zeros, writing. What it has not is found out once.
 */
export class RangeZeroing {
  readonly #fd: number;
  readonly #isDevice: boolean;
  #punches = true;
  #zeroes = true;

  constructor(fd: number, isDevice: boolean) {
    this.#fd = fd;
    this.#isDevice = isDevice;
  }

  async zero(range: ByteRange, options: { readonly mayPunch: boolean }): Promise<void> {
    if (options.mayPunch && (await this.punch(range))) return;
    if (this.#zeroes) {
      const outcome = await attempt(() => this.#zeroInPlace(range));
      if (outcome === "done") return;
      this.#zeroes = outcome !== "never";
    }
    await this.#write(range);
  }

  /** False where space cannot be given back; the range may then be as it was. */
  async punch(range: ByteRange): Promise<boolean> {
    if (!this.#punches) return false;
    // The ioctl that zeroes a device keeps the space; this call does not, and zeroes as surely.
    const outcome = await attempt(() => punchHole(this.#fd, range));
    this.#punches = outcome !== "never";
    return outcome === "done";
  }

  async #zeroInPlace(range: ByteRange): Promise<void> {
    if (!this.#isDevice) return zeroRange(this.#fd, range);
    for (const piece of piecesOf(range, DEVICE_PIECE_BYTES_MAX)) {
      await zeroOutOnDevice(this.#fd, piece);
    }
  }

  async #write(range: ByteRange): Promise<void> {
    for (const { offset, length } of piecesOf(range, ZEROS.length)) {
      await writeFully(this.#fd, ZEROS.subarray(0, length), offset);
    }
  }
}

function* piecesOf({ offset, length }: ByteRange, bytesMax: number): Generator<ByteRange> {
  for (let doneBytes = 0; doneBytes < length; doneBytes += bytesMax) {
    yield { offset: offset + doneBytes, length: Math.min(bytesMax, length - doneBytes) };
  }
}

/** `not-here`: devices refuse what is not aligned to their sectors, with EINVAL. */
async function attempt(act: () => Promise<void>): Promise<"done" | "not-here" | "never"> {
  try {
    await act();
    return "done";
  } catch (error) {
    const number = -((error as NodeJS.ErrnoException).errno ?? 0);
    if (NEVER_SUPPORTED.includes(number)) return "never";
    if (number === EINVAL) return "not-here";
    throw error;
  }
}
