import { expect, test } from "vitest";
import type { GuestState } from "@vmferry/protocol";
import type { Guest } from "./guest.ts";
import { ShownGuests } from "./shown-guests.ts";

const SHOWN_MAX = 100;

/** A guest whose QEMU ends when it is told to. */
class EndingGuest {
  readonly name: string;
  readonly exited: Promise<unknown>;
  alive = true;
  busyWith: string | null = null;
  state: GuestState = "running";
  readonly #exit: (value: undefined) => void;

  constructor(name: string) {
    const { promise, resolve } = Promise.withResolvers<undefined>();
    this.name = name;
    this.exited = promise;
    this.#exit = resolve;
  }

  async end(state: GuestState, busyWith: string | null = null): Promise<void> {
    this.alive = false;
    this.state = state;
    this.busyWith = busyWith;
    this.#exit(undefined);
    await this.exited;
  }
}

function begin(guests: ShownGuests, name: string): EndingGuest {
  const guest = new EndingGuest(name);
  guests.add(guest as unknown as Guest);
  return guest;
}

async function endMany(guests: ShownGuests, count: number, state: GuestState): Promise<void> {
  for (let i = 0; i < count; i++) await begin(guests, `${state}${i}`).end(state);
}

function namesOf(guests: ShownGuests): string[] {
  return guests.all().map(({ name }) => name);
}

test("of guests that have left the last ones are shown, in the order in which they left", async () => {
  const guests = new ShownGuests();
  const first = begin(guests, "web1");
  await endMany(guests, SHOWN_MAX, "handed-off");
  await first.end("handed-off");
  expect(namesOf(guests).length).toBe(SHOWN_MAX);
  expect(namesOf(guests).slice(-2)).toEqual([`handed-off${SHOWN_MAX - 1}`, "web1"]);
  expect([guests.get("handed-off0"), guests.get("handed-off1")?.name]).toEqual([
    undefined,
    "handed-off1",
  ]);
});

test("guests that leave push out none that has stopped", async () => {
  const guests = new ShownGuests();
  await begin(guests, "web1").end("stopped");
  await endMany(guests, 2 * SHOWN_MAX, "handed-off");
  expect(namesOf(guests)).toHaveLength(SHOWN_MAX + 1);
  expect(guests.get("web1")?.state).toBe("stopped");
  await endMany(guests, SHOWN_MAX, "stopped");
  expect(namesOf(guests)).toHaveLength(2 * SHOWN_MAX);
  expect(guests.get("web1")).toBeUndefined();
});

test.each<[string, (guest: EndingGuest) => Promise<void>]>([
  ["has a QEMU", () => Promise.resolve()],
  ["is in doubt", (guest) => guest.end("in-doubt")],
  ["is being migrated", (guest) => guest.end("handed-off", "m1")],
])("a guest that %s stays, however many end after it", async (_, happens) => {
  const guests = new ShownGuests();
  const guest = begin(guests, "web1");
  await happens(guest);
  for (const state of ["stopped", "handed-off"] as const) await endMany(guests, 300, state);
  expect(guests.get("web1")).toBe(guest);
  expect(namesOf(guests)).toHaveLength(2 * SHOWN_MAX + 1);
});

test("a guest that comes back takes the place of what it left, which ends unnoticed", async () => {
  const guests = new ShownGuests();
  const left = begin(guests, "web1");
  const back = begin(guests, "web1");
  begin(guests, "web2");
  await left.end("handed-off");
  guests.remove(left as unknown as Guest);
  expect(guests.all()).toEqual([back, guests.get("web2")]);
  guests.remove(back as unknown as Guest);
  expect(namesOf(guests)).toEqual(["web2"]);
});
