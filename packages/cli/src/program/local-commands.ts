import { Argument } from "commander";
import { readApiToken } from "../api/api-token.ts";
import { printCompletion } from "../commands/completion.ts";
import { doctor } from "../commands/doctor.ts";
import { SHELLS, type Shell } from "../completion/completion-script.ts";
import type { Commands, JsonFlag } from "./commands.ts";

const COMPLETION_HELP = `
To load it:
  bash   source <(vmferry completion bash)
  zsh    source <(vmferry completion zsh)
  fish   vmferry completion fish | source`;

const DOCTOR_HELP = `
Run it as the user of the agent, with the agent's variables: its YAML file is not read. What is not
set is not checked. The exit status is 1 when a check fails, and 0 when there are only warnings.`;

export function addLocalCommands(commands: Commands): void {
  addDoctor(commands);
  addCompletion(commands);
}

interface DoctorFlags extends JsonFlag {
  readonly qemu: string;
  readonly stateDir?: string;
  readonly imageDir?: string;
  readonly sharedDir?: string;
  readonly tlsDir?: string;
}

function addDoctor({ program, environment, flags, runHere }: Commands): void {
  const from = (variable: string): string | undefined => environment[variable] || undefined;
  program
    .command("doctor")
    .description("check whether this host is fit for an agent, and whether agents answer")
    .argument(
      "[URL...]",
      "APIs of agents that have to answer; by default that of --api, where one may",
    )
    .option(
      "--qemu <BINARY>",
      "QEMU to start guests with, or VMFERRY_QEMU",
      from("VMFERRY_QEMU") ?? "qemu-system-x86_64",
    )
    .option(
      "--state-dir <DIR>",
      "the agent's journals and sockets, or VMFERRY_STATE_DIR",
      from("VMFERRY_STATE_DIR"),
    )
    .option(
      "--image-dir <DIR>",
      "kernels, initrds and disks, or VMFERRY_IMAGE_DIR",
      from("VMFERRY_IMAGE_DIR"),
    )
    .option(
      "--shared-dir <DIR>",
      "shared by both hosts, or VMFERRY_SHARED_DIR",
      from("VMFERRY_SHARED_DIR"),
    )
    .option("--tls-dir <DIR>", "certificates and keys, or VMFERRY_TLS_DIR", from("VMFERRY_TLS_DIR"))
    .option("--json", "print the checks as a line of JSON")
    .addHelpText("after", DOCTOR_HELP)
    .action((agents: string[], { json = false, ...settings }: DoctorFlags) => {
      const { api, apiTokenFile } = flags();
      const token = readApiToken(environment, apiTokenFile);
      return runHere((context) => doctor(context, { ...settings, agents, api, token }, json));
    });
}

function addCompletion({ program, runHere }: Commands): void {
  program
    .command("completion")
    .description("print a script that lets a shell complete vmferry's command lines")
    .addArgument(new Argument("<SHELL>", "the shell").choices(SHELLS))
    .addHelpText("after", COMPLETION_HELP)
    .action((shell: Shell) =>
      runHere((context) => Promise.resolve(printCompletion(context, program, shell))),
    );
}
