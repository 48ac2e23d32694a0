import type { BlockDevice } from "@vmferry/block";

/** How the content of a guest's disk, and every write to it, comes to the agent. */
export interface DiskEntry {
  /** Everything that was on the disk is with the device, or was there from the beginning. */
  readonly filled: boolean;
  /** From the return on every write of the guest reaches `device`. Leaves no trace on failure. */
  enter(device: BlockDevice): Promise<void>;
  /** A flush of the device has failed, and the guest is about to be told. */
  suspected(): Promise<void>;
  /** The guest stands still: nothing more comes after this. */
  settle(): Promise<void>;
  /** The guest is left with its disk alone. */
  leave(): Promise<void>;
  /** Only once the guest's QEMU is gone, or will never write again. */
  close(): Promise<void>;
}
