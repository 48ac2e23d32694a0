import { expect, test } from "vitest";
import { FrameCollector } from "./frame-collector.ts";

test("a page that is added while the barrier is taken belongs to the pass behind it", () => {
  const queued: string[] = [];
  let isNested = false;
  const frames = new FrameCollector({
    enqueue: (entry) => {
      if ("barrierOfPass" in entry) queued.push(`barrier ${entry.barrierOfPass}`);
      else if ("view" in entry) queued.push(`page of ${entry.pass}`);
      if (isNested) return;
      isNested = true;
      frames.frame(0).addZero(7);
      frames.flush();
    },
  });
  frames.enter("pages");
  expect(queued).toEqual(["barrier 0", "page of 1"]);
});
