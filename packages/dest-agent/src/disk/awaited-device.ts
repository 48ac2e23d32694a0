/**
 * A disk whose QEMU is there before anybody knows what of it is: requests wait until there is a device
 * to carry them out. A guest that does not run has none, so that few come.
 */
import type { BlockDevice, Extent } from "@vmferry/block";
import { Deferred } from "@vmferry/core";

export class AwaitedDevice implements BlockDevice {
  readonly sizeBytes: number;
  readonly #device = new Deferred<BlockDevice>();

  constructor(sizeBytes: number) {
    this.sizeBytes = sizeBytes;
  }

  serve(device: BlockDevice): void {
    this.#device.resolve(device);
  }

  /** There will be none: whoever waits fails. */
  abandon(reason: Error): void {
    this.#device.reject(reason);
  }

  async read(offset: number, length: number): Promise<Buffer> {
    return (await this.#device.promise).read(offset, length);
  }

  async readInto(offset: number, buffer: Buffer): Promise<void> {
    await (await this.#device.promise).readInto(offset, buffer);
  }

  async write(offset: number, data: Buffer): Promise<void> {
    await (await this.#device.promise).write(offset, data);
  }

  async writeZeroes(
    offset: number,
    length: number,
    options: { readonly mayPunch: boolean },
  ): Promise<void> {
    await (await this.#device.promise).writeZeroes(offset, length, options);
  }

  async trim(offset: number, length: number): Promise<void> {
    await (await this.#device.promise).trim(offset, length);
  }

  async flush(): Promise<void> {
    await (await this.#device.promise).flush();
  }

  async extents(offset: number, length: number): Promise<readonly Extent[]> {
    return (await this.#device.promise).extents(offset, length);
  }
}
