/** New limits of a migration that runs. What is left empty stays as it is. */
import type { MigrationLimitsPatch } from "@vmferry/protocol";
import { make } from "../dom/make.ts";

const MIB = 1024 * 1024;

export interface LimitsForm {
  readonly content: readonly Node[];
  /** Null: nothing was entered. */
  read(): MigrationLimitsPatch | null;
}

export function makeLimitsForm(): LimitsForm {
  const bandwidth = makeField("Bandwidth", {
    unit: "MiB/s",
    min: "0.1",
    step: "any",
    unlimited: true,
  });
  const downtime = makeField("Downtime at most", {
    unit: "ms",
    min: "1",
    step: "1",
    unlimited: false,
  });
  const total = makeField("Time in all at most", {
    unit: "s",
    min: "1",
    step: "any",
    unlimited: true,
  });
  return {
    content: [
      make("p", { class: "hint", text: "What is left empty stays as it is." }),
      ...[bandwidth, downtime, total].map(({ element }) => element),
    ],
    read: () => {
      const limits = {
        ...patch("bandwidthBytesPerSecond", bandwidth.read(MIB)),
        ...patch("downtimeMsMax", downtime.read(1)),
        ...patch("totalMsMax", total.read(1000)),
      };
      return Object.keys(limits).length === 0 ? null : limits;
    },
  };
}

interface FieldOptions {
  readonly unit: string;
  readonly min: string;
  readonly step: string;
  /** May be lifted. */
  readonly unlimited: boolean;
}

interface Field {
  readonly element: HTMLElement;
  /** Undefined: unchanged; null: no limit. */
  read(factor: number): number | null | undefined;
}

function makeField(label: string, { unit, min, step, unlimited }: FieldOptions): Field {
  const id = `limit-${label.toLowerCase().replaceAll(" ", "-")}`;
  const input = make("input", {
    attributes: { id, type: "number", min, step, max: "1000000000", inputmode: "decimal" },
  });
  const lifted = make("input", {
    attributes: { type: "checkbox", "aria-label": `${label}: no limit` },
  });
  lifted.addEventListener("change", () => {
    input.disabled = lifted.checked;
  });
  const lift = make("label", { class: "lift" }, lifted, make("span", { text: "no limit" }));
  const row = make("div", { class: "row" }, input, ...(unlimited ? [lift] : []));
  const element = make(
    "div",
    { class: "field" },
    make("label", { text: `${label}, ${unit}`, attributes: { for: id } }),
    row,
  );
  return {
    element,
    read: (factor) => {
      if (lifted.checked) return null;
      return input.value === "" ? undefined : Math.round(Number(input.value) * factor);
    },
  };
}

function patch(name: string, value: number | null | undefined): Record<string, number | null> {
  return value === undefined ? {} : { [name]: value };
}
