import { describe, expect, it } from "vitest";
import { isClean, moveOne } from "../soak/moves-in-a-row.ts";
import { useLab } from "../test-lab.ts";

// The short form of `node test/soak/twenty-in-a-row.ts`.
describe("the same two agents", () => {
  const test = useLab();

  it("move one guest after the other", async () => {
    for (const number of [1, 2]) {
      const move = await moveOne(test.lab, number, { memoryMib: 512, workload: { mem: "192M" } });
      expect(move).toSatisfy(isClean);
      expect(await test.lab.dest.api.guests()).toEqual([]);
    }
  });
});
