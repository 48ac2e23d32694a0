import { readFileSync } from "node:fs";
import type { MigrationRole } from "@vmferry/protocol";
import { loadConfig, type LoadedConfig } from "./load-config.ts";

/** The configuration of this process. Nothing else reads the environment. */
export function loadProcessConfig<Role extends MigrationRole>(
  role: Role,
  version: string,
): LoadedConfig<Role> {
  return loadConfig(role, {
    argv: process.argv.slice(2),
    environment: process.env,
    workingDir: process.cwd(),
    readFile: (path) => readFileSync(path, "utf8"),
    version,
  });
}
