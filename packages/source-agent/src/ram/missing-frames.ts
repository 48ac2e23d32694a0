/** The frames by which a dest learns what it lacks, and that its QEMU gets the guest without it. */
import type { PageRun } from "@vmferry/agent";
import { FrameEncoding, FrameKind, limits } from "@vmferry/protocol";
import type { OutboundFrame } from "../transport/bulk-sender.ts";

const { FRAME_HEADER_BYTES, FRAME_RUNS_MAX, RUN_BYTES } = limits;

/** As many as that takes; made when they can be sent. */
export function* missingFrames(
  missing: Iterable<PageRun>,
  pass: number,
): Generator<OutboundFrame, void> {
  let block = 0;
  let runs: number[] = [];
  for (const run of missing) {
    if (runs.length > 0 && (run.block !== block || runs.length === 2 * FRAME_RUNS_MAX)) {
      yield missingFrame(block, runs, pass);
      runs = [];
    }
    block = run.block;
    runs.push(run.first, run.count);
  }
  if (runs.length > 0) yield missingFrame(block, runs, pass);
}

/** All of the device state follows, which is so many bytes. */
export function postcopyFrame(deviceStateBytes: number, pass: number): OutboundFrame {
  const view = Buffer.alloc(FRAME_HEADER_BYTES + 4);
  view.writeUInt32BE(deviceStateBytes, FRAME_HEADER_BYTES);
  return { view, kind: FrameKind.POSTCOPY, block: 0, runs: 0, pass, ...RAW };
}

const RAW = { encoding: FrameEncoding.RAW, flushed: (): void => undefined };

function missingFrame(block: number, words: readonly number[], pass: number): OutboundFrame {
  const runs = words.length / 2;
  const view = Buffer.alloc(FRAME_HEADER_BYTES + runs * RUN_BYTES);
  for (const [at, word] of words.entries()) view.writeUInt32BE(word, FRAME_HEADER_BYTES + 4 * at);
  return { view, kind: FrameKind.MISSING, block, runs, pass, ...RAW };
}
