import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { PassGate } from "./pass-gate.ts";

interface Frame {
  readonly pass: number;
  readonly barrier: boolean;
  readonly name: string;
}

const seed = Number(process.env["SEED"] ?? Date.now() % 2 ** 31);

function gate(connections: number): { gate: PassGate<Frame>; admitted: string[] } {
  const admitted: string[] = [];
  return { gate: new PassGate<Frame>(connections, ({ name }) => admitted.push(name)), admitted };
}

function frame(pass: number, name: string): Frame {
  return { pass, barrier: false, name };
}

function barrier(pass: number): Frame {
  return { pass, barrier: true, name: `barrier ${pass}` };
}

describe("the gate between passes", () => {
  test("lets frames of the present pass through as they come", () => {
    const { gate: passes, admitted } = gate(2);
    passes.push(1, frame(0, "a"));
    passes.push(0, frame(0, "b"));
    passes.push(1, frame(0, "c"));
    expect(admitted).toEqual(["a", "b", "c"]);
  });

  test("holds the next pass back until the last connection has ended this one", () => {
    const { gate: passes, admitted } = gate(3);
    passes.push(0, barrier(0));
    passes.push(0, frame(1, "early"));
    passes.push(1, barrier(0));
    passes.push(2, frame(0, "late"));
    expect([admitted, passes.pass]).toEqual([["late"], 0]);
    passes.push(2, barrier(0));
    expect([admitted, passes.pass]).toEqual([["late", "early"], 1]);
  });

  test("takes up several passes at once when one connection was far behind", () => {
    const { gate: passes, admitted } = gate(2);
    for (const pass of [0, 1, 2]) {
      passes.push(0, frame(pass, `${pass}`));
      passes.push(0, barrier(pass));
    }
    expect(admitted).toEqual(["0"]);
    for (const pass of [0, 1, 2]) passes.push(1, barrier(pass));
    expect([admitted, passes.pass]).toEqual([["0", "1", "2"], 3]);
  });

  test.each([1, 7])("refuses a frame that is %i passes ahead of its connection", (ahead) => {
    const { gate: passes } = gate(1);
    expect(() => {
      passes.push(0, frame(ahead, "x"));
    }).toThrow(expect.objectContaining({ code: "protocol-violation" }));
  });

  test("refuses a frame of a pass that its connection has ended", () => {
    const { gate: passes, admitted } = gate(1);
    passes.push(0, barrier(0));
    expect(() => {
      passes.push(0, frame(0, "x"));
    }).toThrow("frame of another pass than its connection's");
    expect(admitted).toEqual([]);
  });

  test("refuses a wrong pass in what waited as well", () => {
    const { gate: passes, admitted } = gate(2);
    passes.push(0, barrier(0));
    passes.push(0, frame(2, "x"));
    expect(() => {
      passes.push(1, barrier(0));
    }).toThrow("frame of another pass than its connection's");
    expect(admitted).toEqual([]);
  });

  test("lets a bounded number wait", () => {
    const { gate: passes } = gate(2);
    expect(() => {
      for (let pass = 0; pass < 100_000; pass++) passes.push(0, barrier(pass));
    }).toThrow(expect.objectContaining({ code: "protocol-violation" }));
  });

  test(`never lets a pass overtake another, in any order of connections (SEED=${seed})`, () => {
    const sizes = fc.array(fc.array(fc.nat(3), { minLength: 4, maxLength: 4 }), {
      minLength: 1,
      maxLength: 4,
    });
    const property = fc.property(sizes, fc.infiniteStream(fc.nat(3)), (plan, order) => {
      const admitted: number[] = [];
      const passes = new PassGate<{ pass: number; barrier: boolean }>(plan.length, ({ pass }) => {
        admitted.push(pass);
      });
      const queues = plan.map((counts) =>
        counts.flatMap((count, pass) => [
          ...Array.from({ length: count }, () => ({ pass, barrier: false })),
          { pass, barrier: true },
        ]),
      );
      while (queues.some(({ length }) => length > 0)) {
        const { value: first } = order.next() as { readonly value: number };
        const connection = [0, 1, 2, 3]
          .map((i) => (first + i) % queues.length)
          .find((i) => queues[i]!.length > 0)!;
        passes.push(connection, queues[connection]!.shift()!);
      }
      expect(admitted).toEqual(admitted.toSorted((a, b) => a - b));
      expect(admitted).toHaveLength(plan.flat().reduce((sum, count) => sum + count, 0));
      expect(passes.pass).toBe(4);
    });
    fc.assert(property, { seed, numRuns: 200 });
  });
});
