import type { MigrationRole } from "@vmferry/protocol";
import { flagOf, settingsOf, variableOf, type Setting } from "./setting-table.ts";

export function usageText(role: MigrationRole): string {
  const settings = settingsOf(role).flatMap((setting) => settingLines(role, setting));
  return [
    `Usage: vmferry-${role}-agent [FLAG...]`,
    "",
    "Flags win over variables, and variables over the YAML file, whose keys are the flags in",
    "camelCase (--api-listen is apiListen).",
    "",
    ...settings,
    "  --config FILE, VMFERRY_CONFIG",
    "      YAML file to read",
    "  --print-config",
    "      print the effective configuration, without secrets, and leave",
    "  --help, -h / --version",
    "",
  ].join("\n");
}

function settingLines(role: MigrationRole, setting: Setting): string[] {
  const { key, value, help, fallback, secret } = setting;
  const names =
    secret === true ? variableOf(key) : `${flagOf(key)}${value && " "}${value}, ${variableOf(key)}`;
  return [
    `  ${names}`,
    `      ${help}${fallback === undefined ? "" : ` (default: ${fallback[role]})`}`,
  ];
}
