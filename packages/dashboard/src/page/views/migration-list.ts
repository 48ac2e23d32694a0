import type { MigrationObject } from "@vmferry/protocol";
import { Badge } from "../dom/badge.ts";
import { KeyedRows, type RowKind } from "../dom/keyed-rows.ts";
import { make, makeSection, setText } from "../dom/make.ts";
import { formatBytes, formatDate, formatMs, formatRate, UNKNOWN } from "../format.ts";
import { isCounted, isFinal, startedAtOf } from "../state/phases.ts";
import { sumOf } from "../state/sum-of.ts";
import { makeTable } from "./table.ts";

const COLUMNS = ["Guest", "To", "Phase", "Left", "Wire", "Downtime", "Began"];

export class MigrationList {
  readonly element: HTMLElement;
  readonly #rows: KeyedRows<MigrationObject>;
  readonly #empty = make("p", { class: "empty", text: "Loading…" });
  readonly #table = makeTable("Migrations", COLUMNS);

  constructor() {
    this.element = makeSection("Migrations", this.#table.element, this.#empty);
    this.#rows = new KeyedRows(this.#table.body, rowKind());
    this.show(null);
  }

  show(migrations: readonly MigrationObject[] | null): void {
    this.#rows.show(migrations ?? []);
    const isEmpty = migrations === null || migrations.length === 0;
    this.#table.element.hidden = isEmpty;
    this.#empty.hidden = !isEmpty;
    if (migrations !== null)
      setText(this.#empty, "No migration yet. Start one by the API or with “vmferry migrate”.");
  }
}

function rowKind(): RowKind<MigrationObject> {
  const badges = new WeakMap<HTMLTableRowElement, Badge>();
  return {
    keyOf: ({ id }) => id,
    make: (migration) => {
      const { id, guest, destination } = migration;
      const startedAt = startedAtOf(migration);
      const badge = new Badge();
      const link = make("a", {
        text: guest,
        attributes: { href: `#/migrations/${encodeURIComponent(id)}`, title: id },
      });
      const row = make(
        "tr",
        {},
        make("th", { attributes: { scope: "row" } }, link),
        make("td", { text: destination }),
        make("td", {}, badge.element),
        make("td", { class: "number" }),
        make("td", { class: "number" }),
        make("td", { class: "number" }),
        make("td", { class: "number", text: startedAt === null ? UNKNOWN : formatDate(startedAt) }),
      );
      badges.set(row, badge);
      return row;
    },
    update: (row, migration) => {
      badges.get(row)?.showPhase(migration.phase);
      for (const [index, text] of changingTexts(migration).entries()) {
        const cell = row.cells.item(index + 3);
        if (cell !== null) setText(cell, text);
      }
    },
  };
}

function changingTexts(migration: MigrationObject): readonly [string, string, string] {
  const { phase, wire, result, predictedDowntimeMs } = migration;
  const isOver = isFinal(phase);
  const downtime =
    isOver || predictedDowntimeMs === null
      ? formatMs(result?.downtimeMs ?? null)
      : `≈ ${formatMs(predictedDowntimeMs)}`;
  return [
    isOver ? UNKNOWN : formatBytes(leftBytes(migration)),
    isOver
      ? formatBytes(isCounted(migration) ? wire.bytes : null)
      : formatRate(wire.bytesPerSecond),
    downtime,
  ];
}

/** Null as long as nobody knows of all parts. */
function leftBytes({ ram, disks, phase }: MigrationObject): number | null {
  const parts = disks.filter(({ mode }) => mode === "copy").map((disk) => disk.remainingBytes);
  if (phase !== "disk-copy") parts.push(ram.remainingBytes);
  return sumOf(parts);
}
