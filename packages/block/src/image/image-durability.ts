/**
 * The flushes of an image. The kernel reports a failed write-back once and then forgets it together
 * with the data: a second flush would succeed and lie. So an image that failed to store something
 * is suspect from then on, no flush of it succeeds any more, and whoever uses it has to give up.
 *
 * For the same reason one fdatasync runs at a time: of two, one would be told of the failure and
 * the other would answer its flush with success. Flushes that come while one runs share the next.
 */
export class ImageDurability {
  readonly #datasync: () => Promise<void>;
  #suspect = false;
  /** The fdatasync that has not begun yet: it covers whatever was written until it does. */
  #next: Promise<void> | null = null;
  #last: Promise<unknown> = Promise.resolve();

  constructor(datasync: () => Promise<void>) {
    this.#datasync = datasync;
  }

  /** Something that was written may be lost; for ever true once it is. */
  get suspect(): boolean {
    return this.#suspect;
  }

  /** A request that was to change the image failed, and not for want of space or permission. */
  storageFailed(): void {
    this.#suspect = true;
  }

  flush(): Promise<void> {
    this.#next ??= this.#syncAfter(this.#last);
    return this.#next;
  }

  #syncAfter(previous: Promise<unknown>): Promise<void> {
    const sync = previous.then(() => {
      this.#next = null;
      return this.#sync();
    });
    this.#last = sync.catch(() => undefined);
    return sync;
  }

  async #sync(): Promise<void> {
    if (!this.#suspect) {
      try {
        await this.#datasync();
      } catch (cause) {
        this.#suspect = true;
        throw cause;
      }
    }
    // Also where a write failed while the fdatasync ran.
    if (this.#suspect) throw new Error("the image failed to store data before");
  }
}
