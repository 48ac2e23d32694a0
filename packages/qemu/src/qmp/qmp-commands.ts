import { QMP_ARGUMENT_CHECKS, type QmpArgumentMap } from "./qmp-arguments.ts";
import { QmpError } from "./qmp-error.ts";
import * as results from "./qmp-results.ts";
import { readQueryMigrate } from "./query-migrate.ts";

/**
 * Every command that may be sent, with what reads its reply. What is not here cannot be sent, at
 * compile time nor at run time.
 */
const QMP_RESULT_READERS = {
  qmp_capabilities: results.readNothing,
  "query-status": results.readQueryStatus,
  "query-version": results.readQueryVersion,
  "query-name": results.readQueryName,
  "query-uuid": results.readQueryUuid,
  "query-machines": results.readQueryMachines,
  "query-cpus-fast": results.readQueryCpus,
  "query-memory-size-summary": results.readQueryMemorySize,
  "query-kvm": results.readQueryKvm,
  "query-pci": results.readQueryPci,
  "qom-list": results.readQomList,
  "qom-get": results.readQomGet,
  "query-block": results.readQueryBlock,
  "query-named-block-nodes": results.readQueryNamedBlockNodes,
  "query-migrate": readQueryMigrate,
  "query-migrate-capabilities": results.readQueryMigrateCapabilities,
  "query-migrate-parameters": results.readQueryMigrateParameters,
  "calc-dirty-rate": results.readNothing,
  "query-dirty-rate": results.readQueryDirtyRate,
  "migrate-set-capabilities": results.readNothing,
  "migrate-set-parameters": results.readNothing,
  migrate: results.readNothing,
  "migrate-incoming": results.readNothing,
  "migrate-recover": results.readNothing,
  "query-yank": results.readNothing,
  "migrate-continue": results.readNothing,
  "migrate-start-postcopy": results.readNothing,
  migrate_cancel: results.readNothing,
  "blockdev-add": results.readNothing,
  "blockdev-reopen": results.readNothing,
  "blockdev-del": results.readNothing,
  "blockdev-mirror": results.readNothing,
  "block-job-cancel": results.readNothing,
  cont: results.readNothing,
  stop: results.readNothing,
  system_powerdown: results.readNothing,
  quit: results.readNothing,
} satisfies Readonly<Record<string, (value: unknown) => unknown>>;

export type QmpCommand = keyof typeof QMP_RESULT_READERS;
/** Those that QEMU carries out beside its main loop, where a session has agreed on that. */
export type QmpOobCommand = "migrate-recover" | "query-yank";
export type QmpResult<Command extends QmpCommand> = ReturnType<
  (typeof QMP_RESULT_READERS)[Command]
>;
export type QmpArguments<Command extends QmpCommand> = Command extends keyof QmpArgumentMap
  ? QmpArgumentMap[Command]
  : undefined;

/** Throws `qmp-command-not-allowed` or `qmp-arguments-not-allowed`. */
export function checkQmpCommand(command: string, commandArguments: unknown): void {
  if (!Object.hasOwn(QMP_RESULT_READERS, command)) {
    throw new QmpError(`the QMP command ${command} is not one that this client sends`, {
      code: "qmp-command-not-allowed",
      command,
    });
  }
  const reason = problemWithArguments(command, commandArguments);
  if (reason === null) return;
  throw new QmpError(`the QMP command ${command} was not sent: ${reason}`, {
    code: "qmp-arguments-not-allowed",
    command,
    reason,
  });
}

/** Throws `qmp-unexpected-shape` where the reply is not what the command promises. */
export function readQmpResult<Command extends QmpCommand>(
  command: Command,
  value: unknown,
): QmpResult<Command> {
  return QMP_RESULT_READERS[command](value) as QmpResult<Command>;
}

function problemWithArguments(command: string, commandArguments: unknown): string | null {
  if (Object.hasOwn(QMP_ARGUMENT_CHECKS, command)) {
    return QMP_ARGUMENT_CHECKS[command as keyof QmpArgumentMap](commandArguments);
  }
  return commandArguments === undefined ? null : "it takes no arguments";
}
