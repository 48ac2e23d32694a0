import { watch } from "../commands/watch.ts";
import { duration } from "./argument-parsers.ts";
import type { Commands, JsonFlag } from "./commands.ts";

export function addWatch({ program, run }: Commands): void {
  program
    .command("watch")
    .description("follow a migration to its end; Ctrl-C only ends the following")
    .argument("<ID>", "of a migration: see vmferry list")
    .option("--timeout <DURATION>", "leave it after that time, with exit status 124", duration)
    .option("--json", "print each event and then the migration as a line of JSON")
    .action((id: string, { timeout, ...rest }: JsonFlag & { readonly timeout?: number }) =>
      run((context) => watch(context, id, { ...rest, timeoutMs: timeout ?? null })),
    );
}
