import { beforeEach, expect, test } from "vitest";
import { fillGuestDefinition } from "@vmferry/protocol";
import type { SilentGuest } from "./earlier-guests.ts";
import { UnknownGuests } from "./unknown-guests.ts";

const silent: SilentGuest = {
  record: {
    definition: fillGuestDefinition({ name: "web1", machine: "pc-q35-10.0", memoryBytes: 2 ** 29 }),
    ...{ accel: "tcg", uuid: "6ba7b810-9dad-41d1-80b4-00c04fd430c8", qemuVersion: "10.0.2" },
    ...{ epoch: 3, stage: "owned", identity: null },
  },
  ...{ pid: 4711, reason: "it is stopped", found: new Promise(() => undefined) },
};

let guests: UnknownGuests;

beforeEach(() => {
  guests = new UnknownGuests("/state/guests");
  guests.foundUnreadable(["torn"]);
});

test("a guest whose QEMU does not answer is shown with what is written down of it", () => {
  const object = guests.foundSilent(silent);
  expect(object).toMatchObject({ name: "web1", state: "in-doubt", pid: 4711, epoch: 3 });
  expect(guests.object("web1")).toEqual(object);
  expect(guests.objects().map(({ name }) => name)).toEqual(["web1", "torn"]);
});

test("one whose record cannot be read is shown by its name", () => {
  expect(guests.object("torn")).toMatchObject({ name: "torn", state: "in-doubt", pid: null });
  expect(guests.object("web1")).toBeNull();
});

test("nobody may do anything with either, and each says why", () => {
  guests.foundSilent(silent);
  const doubt = { code: "guest-in-doubt" };
  for (const [name, why] of [
    ["web1", /process 4711.*it is stopped/],
    ["torn", /\/state\/guests\/torn\/guest\.json/],
  ] as const) {
    expect(guests.has(name)).toBe(true);
    expect(() => {
      guests.refuse(name);
    }).toThrow(
      expect.objectContaining({ ...doubt, message: expect.stringMatching(why) as string }),
    );
  }
  guests.refuse("web2");
  expect(guests.has("web2")).toBe(false);
});

test("memory is taken by the QEMU that does not answer, until it does", () => {
  expect(guests.memoryBytes).toBe(0);
  guests.foundSilent(silent);
  expect(guests.memoryBytes).toBe(2 ** 29);
  guests.answered("web1");
  expect([guests.memoryBytes, guests.object("web1"), guests.has("web1")]).toEqual([0, null, false]);
});
