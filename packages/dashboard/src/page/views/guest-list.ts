import type { GuestObject } from "@vmferry/protocol";
import { Badge } from "../dom/badge.ts";
import { KeyedRows } from "../dom/keyed-rows.ts";
import { make, makeSection, setText } from "../dom/make.ts";
import { formatBytes, UNKNOWN } from "../format.ts";
import { makeTable } from "./table.ts";

export class GuestList {
  readonly element: HTMLElement;
  readonly #rows: KeyedRows<GuestObject>;
  readonly #empty = make("p", { class: "empty", text: "Loading…" });
  readonly #table = makeTable("Guests", ["Name", "State", "Memory", "vCPUs", "Disks", "QEMU"]);

  constructor() {
    this.element = makeSection("Guests", this.#table.element, this.#empty);
    this.#rows = new KeyedRows(this.#table.body, rowKind());
    this.show(null);
  }

  show(guests: readonly GuestObject[] | null): void {
    this.#rows.show(guests ?? []);
    const isEmpty = guests === null || guests.length === 0;
    this.#table.element.hidden = isEmpty;
    this.#empty.hidden = !isEmpty;
    if (guests !== null) setText(this.#empty, "This agent has no guests.");
  }
}

function rowKind(): ConstructorParameters<typeof KeyedRows<GuestObject>>[1] {
  const badges = new WeakMap<HTMLTableRowElement, Badge>();
  return {
    keyOf: ({ name }) => name,
    make: ({ name }) => {
      const badge = new Badge();
      const row = make(
        "tr",
        {},
        make("th", { text: name, attributes: { scope: "row" } }),
        make("td", {}, badge.element),
        make("td", { class: "number" }),
        make("td", { class: "number" }),
        make("td"),
        make("td"),
      );
      badges.set(row, badge);
      return row;
    },
    update: (row, guest) => {
      badges.get(row)?.showGuest(guest.state);
      const texts = [
        formatBytes(guest.memoryBytes),
        String(guest.vcpus),
        disksText(guest),
        `${guest.qemuVersion ?? UNKNOWN} · ${guest.accel}`,
      ];
      for (const [index, text] of texts.entries()) {
        const cell = row.cells.item(index + 2);
        if (cell !== null) setText(cell, text);
      }
    },
  };
}

function disksText({ disks }: GuestObject): string {
  if (disks.length === 0) return "none";
  return disks
    .map(({ id, sizeBytes, mode }) => `${id} ${formatBytes(sizeBytes)} ${mode}`)
    .join(", ");
}
