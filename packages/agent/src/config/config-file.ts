import type { MigrationRole } from "@vmferry/protocol";
import { parse } from "yaml";
import { messageOf } from "@vmferry/core";
import { closestNameHint } from "./closest-name.ts";
import type { RawValue, SettingLayer } from "./setting-layer.ts";
import { settingsOf, type SettingKey } from "./setting-table.ts";

/** The settings that the text of the YAML file at `path` makes; null values count as absent. */
export function parseConfigFile(role: MigrationRole, path: string, yaml: string): SettingLayer {
  const values = new Map<SettingKey, RawValue>();
  const problems: string[] = [];
  let content: unknown;
  try {
    content = parse(yaml) ?? {};
  } catch (error) {
    return { values, problems: [`${path}: ${messageOf(error)}`] };
  }
  if (!isMapping(content)) return { values, problems: [`${path} does not hold keys and values`] };

  const keys = settingsOf(role).map(({ key }) => key);
  for (const [name, value] of Object.entries(content)) {
    const origin = `${name} in ${path}`;
    const key = keys.find((one) => one === name);
    const text = key === "peers" && isMapping(value) ? peerText(value) : scalarText(value);
    if (key === undefined) problems.push(`there is no ${origin}${closestNameHint(name, keys)}`);
    else if (text === null) problems.push(`${origin} has to be one value`);
    else if (text !== "") values.set(key, { text, origin });
  }
  return { values, problems };
}

function isMapping(value: unknown): value is Record<string, unknown> {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}

function scalarText(value: unknown): string | null {
  if (value === null) return "";
  const isScalar =
    typeof value === "string" || typeof value === "number" || typeof value === "boolean";
  return isScalar ? String(value) : null;
}

/** `peers` may be written as a mapping from names to URLs. */
function peerText(peers: Record<string, unknown>): string | null {
  const urls = Object.values(peers);
  if (!urls.every((url) => typeof url === "string")) return null;
  return Object.entries(peers)
    .map(([name, url]) => `${name}=${String(url)}`)
    .join(",");
}
