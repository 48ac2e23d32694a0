import type { MigrationRequest } from "../api/migration.ts";
import { offered } from "../api/offered.ts";
import type { CommandContext } from "../command-context.ts";
import { EXIT_CODE, type ExitCode } from "../exit-code.ts";
import { renderChecks } from "../render/check-list.ts";
import { refusalOf } from "./refusal.ts";

export interface PreflightOptions {
  readonly json?: boolean;
}

/** Whether a migration would be begun. Nothing is started. */
export async function preflight(
  { api, stdout }: CommandContext,
  request: MigrationRequest,
  { json = false }: PreflightOptions,
): Promise<ExitCode> {
  try {
    const checks = await offered("preflight", api.preflight(request));
    stdout.write(json ? `${JSON.stringify({ checks })}\n` : renderChecks(checks));
    return checks.some(({ status }) => status === "fail") ? EXIT_CODE.refused : EXIT_CODE.ok;
  } catch (error) {
    throw refusalOf(error);
  }
}
