/** Where an image has holes, for who goes through it once; only a hint, as the guest may fill them. */
import type { BlockDevice, Extent } from "@vmferry/block";

/** Looked at in one go. */
const LOOK_BYTES = 1024 * 1024 * 1024;

export class HoleMap {
  readonly #image: BlockDevice;
  #extents: readonly Extent[] = [];

  constructor(image: BlockDevice) {
    this.#image = image;
  }

  /** How far the hole at `offset` reaches, in bytes; 0 where there is none. */
  async reach(offset: number): Promise<number> {
    const covers = (extent: Extent): boolean =>
      extent.offset <= offset && offset < extent.offset + extent.length;
    let extent = this.#extents.find(covers);
    if (extent === undefined) {
      const length = Math.min(LOOK_BYTES, this.#image.sizeBytes - offset);
      this.#extents = await this.#image.extents(offset, length);
      extent = this.#extents.find(covers);
    }
    return extent?.kind === "zero" ? extent.offset + extent.length - offset : 0;
  }
}
