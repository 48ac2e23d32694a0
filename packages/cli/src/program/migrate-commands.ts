// `migrate` and `preflight` take the same request: one carries out what the other asks about.

import { Option, type Command } from "commander";
import type { MigrationRequest } from "../api/migration.ts";
import { migrate } from "../commands/migrate.ts";
import { preflight } from "../commands/preflight.ts";
import { duration, rate } from "./argument-parsers.ts";
import { PRINT_ANSWER, type Commands, type JsonFlag } from "./commands.ts";

const MIGRATE_HELP = `
Ctrl-C asks the agent to cancel, and the migration is followed until it has ended; a second one
leaves it alone. A guest that has been handed over cannot be called back.

Examples:
  vmferry migrate web1 host-b
  vmferry migrate web1 host-b --downtime 100ms --bandwidth 1Gbit/s --on-stall cancel
  vmferry migrate web1 host-b --post-copy --fallback shared-filesystem --disk-handover lazy
  vmferry migrate web1 host-b --json | tail -n 1`;

interface RequestFlags {
  readonly postCopy?: boolean;
  readonly downtime?: number;
  readonly bandwidth?: number;
  readonly onStall?: string;
  readonly diskHandover?: string;
  readonly fallback?: string;
  readonly allowUnsafe?: readonly string[];
}

interface MigrateFlags extends RequestFlags, JsonFlag {
  readonly detach?: boolean;
}

export function addMigrate({ program, run }: Commands): void {
  withRequest(program.command("migrate"))
    .description("migrate a guest and follow it; Ctrl-C asks to cancel, a second one detaches")
    .option("--detach", "do not wait for its end")
    .option("--json", "print each event and then the migration as a line of JSON")
    .addHelpText("after", MIGRATE_HELP)
    .action((guest: string, destination: string, flags: MigrateFlags) =>
      run((context) => migrate(context, requestOf(guest, destination, flags), flags)),
    );
}

export function addPreflight({ program, run }: Commands): void {
  withRequest(program.command("preflight"))
    .description("check whether a guest could be migrated; nothing is started")
    .option("--json", PRINT_ANSWER)
    .action((guest: string, destination: string, flags: RequestFlags & JsonFlag) =>
      run((context) => preflight(context, requestOf(guest, destination, flags), flags)),
    );
}

function withRequest(command: Command): Command {
  return command
    .argument("<GUEST>", "a guest of the agent")
    .argument("<DEST>", "the name of one of its peers")
    .option("--post-copy", "let it run at the destination soon, and fetch its memory from there")
    .option("--downtime <DURATION>", "how long the guest may stand still, such as 300ms", duration)
    .option("--bandwidth <RATE>", "limit such as 100MB/s, 1Gbit/s or bytes a second", rate)
    .addOption(
      new Option("--on-stall <WHAT>", "what to do when it does not converge").choices([
        "post-copy",
        "throttle",
        "cancel",
        "stun",
      ]),
    )
    .addOption(
      new Option(
        "--disk-handover <WHEN>",
        "whether its disks are there before it runs at the destination, or follow it",
      ).choices(["synced", "lazy"]),
    )
    .addOption(
      new Option("--fallback <WHAT>", "where memory may go when the link is too bad").choices([
        "none",
        "shared-filesystem",
      ]),
    )
    .addOption(
      new Option("--allow-unsafe <CHECK>", "a check that may fail; may be given several times")
        .choices(["cpu-features", "dest-space", "memory", "source-space"])
        // Only the agent knows which it has; the choices are for completion.
        .argParser((name, before: readonly string[] | undefined) => [...(before ?? []), name]),
    );
}

/** Only what was asked for: the defaults are the agent's. */
function requestOf(guest: string, destination: string, flags: RequestFlags): MigrationRequest {
  const { postCopy = false, downtime, bandwidth, onStall, allowUnsafe } = flags;
  const { diskHandover: handover, fallback } = flags;
  return {
    guest,
    destination,
    ...(postCopy ? { mode: "post-copy" } : {}),
    ...(onStall === undefined ? {} : { onStall }),
    ...(handover === undefined ? {} : { disk: { handover } }),
    ...(fallback === undefined ? {} : { fallback }),
    ...(allowUnsafe === undefined ? {} : { allowUnsafe }),
    limits: {
      ...(downtime === undefined ? {} : { downtimeMsMax: downtime }),
      ...(bandwidth === undefined ? {} : { bandwidthBytesPerSecond: bandwidth }),
    },
  };
}
