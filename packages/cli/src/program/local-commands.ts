import { Argument } from "commander";
import { readApiToken } from "../api/api-token.ts";
import { initCertificates } from "../commands/certs.ts";
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

const CERTS_HELP = `
DIR gets ca-cert.pem and ca-key.pem, where they are not there yet, and for each host a directory with
the files of VMFERRY_TLS_DIR, valid for 825 days. Hosts can be added later. It needs openssl 3.

  vmferry certs init ./lab --host host-a --host host-b,10.0.0.2`;

export function addLocalCommands(commands: Commands): void {
  addDoctor(commands);
  addCerts(commands);
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

function addCerts({ program, runHere }: Commands): void {
  program
    .command("certs")
    .description("certificates for TLS between agents")
    .command("init")
    .description("make a private authority and certificates of hosts, for a lab")
    .argument("<DIR>", "where they are made")
    .option(
      "--host <NAMES...>",
      "a host, by all names and addresses that it is dialled by, with commas between; by default this one alone",
    )
    .addHelpText("after", CERTS_HELP)
    .action((directory: string, { host }: { readonly host?: string[] }) =>
      runHere((context) => initCertificates(context, directory, host)),
    );
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
