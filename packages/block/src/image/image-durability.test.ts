import { Deferred } from "@vmferry/core";
import { beforeEach, describe, expect, it } from "vitest";
import { ImageDurability } from "./image-durability.ts";

/** Every fdatasync that was begun, to be settled by the test. */
let syncs: Deferred[];
let durability: ImageDurability;

beforeEach(() => {
  syncs = [];
  durability = new ImageDurability(() => {
    const sync = new Deferred();
    syncs.push(sync);
    return sync.promise;
  });
});

/** Until whatever can go on has gone on. */
const settle = (): Promise<void> => new Promise((resolve) => setImmediate(resolve));

describe("ImageDurability", () => {
  it("lets flushes that come together share one fdatasync", async () => {
    const flushes = [durability.flush(), durability.flush()];
    await settle();
    expect(syncs.length).toBe(1);
    syncs[0]!.resolve();
    await Promise.all(flushes);
  });

  it("answers a flush that comes while an fdatasync runs with the next one", async () => {
    const first = durability.flush();
    await settle();
    let isAnswered = false;
    const second = durability.flush().then(() => (isAnswered = true));
    const third = durability.flush();
    await settle();
    expect(syncs.length).toBe(1);
    syncs[0]!.resolve();
    await first;
    await settle();
    expect(syncs.length).toBe(2);
    expect(isAnswered).toBe(false);
    syncs[1]!.resolve();
    await Promise.all([second, third]);
  });

  it("fails what waits behind a failure, and all that comes later, and asks no more", async () => {
    const first = durability.flush();
    await settle();
    const second = durability.flush();
    expect(durability.suspect).toBe(false);
    syncs[0]!.reject(new Error("EIO"));
    await expect(first).rejects.toThrow("EIO");
    await expect(second).rejects.toThrow("failed to store");
    expect(durability.suspect).toBe(true);
    await expect(durability.flush()).rejects.toThrow("failed to store");
    expect(syncs.length).toBe(1);
  });

  it("fails a flush during which a write failed, and all that come later", async () => {
    const flush = durability.flush();
    await settle();
    durability.storageFailed();
    syncs[0]!.resolve();
    await expect(flush).rejects.toThrow("failed to store");
    await expect(durability.flush()).rejects.toThrow("failed to store");
    expect(syncs.length).toBe(1);
  });
});
