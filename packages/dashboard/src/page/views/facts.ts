/** The numbers of a migration that one looks for first. */
import type { MigrationObject } from "@vmferry/protocol";
import { make, setText } from "../dom/make.ts";
import { formatBytes, formatMs, formatRate } from "../format.ts";
import { elapsedMs, isCounted, isFinal } from "../state/phases.ts";

interface Fact {
  readonly label: string;
  readonly textOf: (migration: MigrationObject, nowMs: number) => string;
}

const FACTS: readonly Fact[] = [
  { label: "Elapsed", textOf: (migration, nowMs) => formatMs(elapsedMs(migration, nowMs)) },
  { label: "Time left", textOf: ({ etaMs }) => formatMs(etaMs) },
  {
    label: "Downtime",
    textOf: ({ phase, result, predictedDowntimeMs }) =>
      isFinal(phase) || predictedDowntimeMs === null
        ? formatMs(result?.downtimeMs ?? null)
        : `≈ ${formatMs(predictedDowntimeMs)}`,
  },
  {
    label: "On the wire",
    textOf: (migration) => formatBytes(isCounted(migration) ? migration.wire.bytes : null),
  },
  {
    label: "Wire rate",
    textOf: ({ wire, phase }) => formatRate(isFinal(phase) ? null : wire.bytesPerSecond),
  },
  {
    label: "Memory",
    textOf: ({ ram }) => formatBytes(ram.totalBytes === 0 ? null : ram.totalBytes),
  },
  { label: "Pass", textOf: ({ ram }) => (ram.pass === 0 ? "–" : String(ram.pass)) },
];

export class Facts {
  readonly element = make("dl", { class: "facts" });
  readonly #values = FACTS.map(({ label }) => {
    const value = make("dd", { text: "–" });
    this.element.append(make("div", {}, make("dt", { text: label }), value));
    return value;
  });

  show(migration: MigrationObject, nowMs: number): void {
    for (const [index, { textOf }] of FACTS.entries()) {
      const value = this.#values[index];
      if (value !== undefined) setText(value, textOf(migration, nowMs));
    }
  }
}
