import { expect, test } from "vitest";
import { LateWitness, type WitnessPort } from "./late-witness.ts";

const stun = { migrationId: "m1", epoch: 2, generation: 1 };

test("a witness that cannot be opened yet is opened by a later question, and then stays", async () => {
  const opened: string[] = [];
  let failures = 2;
  const ready = { decide: () => Promise.resolve("taken") } as unknown as WitnessPort;
  const witness = new LateWitness("/shared", (directory) => {
    opened.push(directory);
    return failures-- > 0 ? Promise.reject(new Error("no answer")) : Promise.resolve(ready);
  });
  expect(opened).toEqual([]);
  for (let attempt = 0; attempt < 2; attempt++) {
    await expect(witness.decide(stun, "taken", "d1")).rejects.toThrow("no answer");
  }
  expect(await witness.decide(stun, "taken", "d1")).toBe("taken");
  expect(await witness.decide(stun, "taken", "d1")).toBe("taken");
  expect(opened).toEqual(["/shared", "/shared", "/shared"]);
});

test("questions that come together open it once", async () => {
  let count = 0;
  const witness = new LateWitness("/shared", () => {
    count += 1;
    return Promise.resolve({ sees: () => Promise.resolve(true) } as unknown as WitnessPort);
  });
  const seen = await Promise.all([witness.sees("m1", "p"), witness.sees("m2", "p")]);
  expect([seen, count]).toEqual([[true, true], 1]);
});
