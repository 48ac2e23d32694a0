export interface RowKind<T> {
  readonly keyOf: (item: T) => string;
  readonly make: (item: T) => HTMLTableRowElement;
  readonly update: (row: HTMLTableRowElement, item: T) => void;
}

/** Rows that live as long as what they show, so that focus and selection in them do. */
export class KeyedRows<T> {
  readonly #body: HTMLTableSectionElement;
  readonly #kind: RowKind<T>;
  #rows = new Map<string, HTMLTableRowElement>();

  constructor(body: HTMLTableSectionElement, kind: RowKind<T>) {
    this.#body = body;
    this.#kind = kind;
  }

  show(items: readonly T[]): void {
    const rows = new Map<string, HTMLTableRowElement>();
    for (const [index, item] of items.entries()) {
      const key = this.#kind.keyOf(item);
      const row = this.#rows.get(key) ?? this.#kind.make(item);
      this.#kind.update(row, item);
      rows.set(key, row);
      const there = this.#body.rows.item(index);
      if (there !== row) this.#body.insertBefore(row, there);
    }
    for (const [key, row] of this.#rows) if (!rows.has(key)) row.remove();
    this.#rows = rows;
  }
}
