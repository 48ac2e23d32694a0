import type { SettingKey } from "./setting-table.ts";

export interface RawValue {
  readonly text: string;
  /** Where the value was written, as people call it: `--api-listen`, `VMFERRY_API_LISTEN`, … */
  readonly origin: string;
}

/** What one place says: the command line, the environment or the file. */
export interface SettingLayer {
  readonly values: ReadonlyMap<SettingKey, RawValue>;
  readonly problems: readonly string[];
}
