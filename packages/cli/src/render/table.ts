/** Columns as wide as their widest cell, two blanks apart. The first row is the head. */
export function renderTable(rows: readonly (readonly string[])[]): string {
  const widths: number[] = [];
  for (const row of rows) {
    row.forEach((cell, column) => {
      widths[column] = Math.max(widths[column] ?? 0, cell.length);
    });
  }
  const line = (row: readonly string[]): string =>
    row
      .map((cell, column) => cell.padEnd(widths[column] ?? 0))
      .join("  ")
      .trimEnd();
  return `${rows.map(line).join("\n")}\n`;
}

/** A name and a value a line, below a head. */
export function renderDetails(
  head: string,
  details: readonly (readonly [string, string])[],
): string {
  const width = Math.max(0, ...details.map(([name]) => name.length));
  const lines = details.map(([name, value]) => `  ${name.padEnd(width)}  ${value}`);
  return `${[head, ...lines].join("\n")}\n`;
}
