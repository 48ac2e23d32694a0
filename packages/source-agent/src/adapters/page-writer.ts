/** The thread that writes the batches of a store, and tells of each when it is written. */
import { writeSync } from "node:fs";
import { parentPort, workerData } from "node:worker_threads";
import { BATCH_PAGE_BYTES, PageBatch } from "./page-batch.ts";

export interface WriterData {
  /** Of the store's file. */
  readonly fd: number;
}

/** Of the batch that was handed over first of those not told of. */
export interface Written {
  /** Null where it was written. */
  readonly failure: Error | null;
}

const { fd } = workerData as WriterData;

parentPort!.on("message", (memory: SharedArrayBuffer) => {
  const written: Written = { failure: failureOf(new PageBatch(memory)) };
  parentPort!.postMessage(written);
});

function failureOf(batch: PageBatch): Error | null {
  try {
    for (const { place, bytes } of batch.spans()) writeWhole(bytes, place * BATCH_PAGE_BYTES);
    return null;
  } catch (error) {
    return error as Error;
  }
}

function writeWhole(bytes: Buffer, atByte: number): void {
  let done = 0;
  while (done < bytes.length) {
    done += writeSync(fd, bytes, done, bytes.length - done, atByte + done);
  }
}
