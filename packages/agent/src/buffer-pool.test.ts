import { describe, expect, it } from "vitest";
import { BufferPool } from "./buffer-pool.ts";

const MIB = 1024 * 1024;

describe("a pool of buffers", () => {
  it("has buffers of any size", () => {
    const pool = new BufferPool(MIB);
    for (const bytes of [0, 1, 4095, 4096, 4097, 300_000]) {
      expect(pool.take(bytes)).toHaveLength(bytes);
    }
  });

  it("gives what was given back to the next who needs about as much", () => {
    const pool = new BufferPool(MIB);
    const first = pool.take(5000);
    pool.give(first);
    const [other, next] = [pool.take(9000), pool.take(8000)];
    expect(other.buffer).not.toBe(first.buffer);
    expect(next.buffer).toBe(first.buffer);
    expect(next).toHaveLength(8000);
  });

  it("never has two who use one buffer at the same time", () => {
    const pool = new BufferPool(MIB);
    const taken = Array.from({ length: 10 }, () => pool.take(5000));
    for (const each of taken) pool.give(each);
    const again = Array.from({ length: 12 }, () => pool.take(5000).buffer);
    expect(new Set(again).size).toBe(12);
  });

  it("takes little more memory than is asked for", () => {
    const pool = new BufferPool(MIB);
    for (const bytes of [5000, 70_000, 262_144]) {
      expect(pool.take(bytes).buffer.byteLength).toBeLessThan(2 * bytes);
    }
  });

  it("keeps no more than it may", () => {
    const pool = new BufferPool(10_000);
    const taken = Array.from({ length: 5 }, () => pool.take(4096));
    for (const each of taken) pool.give(each);
    expect(pool.freeBytes).toBe(8192);
    expect([pool.take(4096).buffer, pool.take(4096).buffer]).toEqual([
      taken[1]!.buffer,
      taken[0]!.buffer,
    ]);
    expect(pool.freeBytes).toBe(0);
  });
});
