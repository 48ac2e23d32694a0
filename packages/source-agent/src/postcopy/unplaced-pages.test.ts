import { describe, expect, it } from "vitest";
import { UnplacedPages } from "./unplaced-pages.ts";

describe("pages that were sent and not placed", () => {
  it("are counted until all bytes of their frame were told of", () => {
    const unplaced = new UnplacedPages();
    unplaced.sent(3, 1000);
    unplaced.sent(5, 2000);
    unplaced.placed(999);
    expect(unplaced.count).toBe(8);
    unplaced.placed(1);
    expect(unplaced.count).toBe(5);
    unplaced.placed(2000);
    expect(unplaced.count).toBe(0);
  });
});
