import { resolve } from "node:path";
import { parseHost, type CertifiedHost } from "../certs/host-names.ts";
import { certifyHost, ensureAuthority, refuseCertified } from "../certs/laboratory.ts";
import { CliError, messageOf, usageError } from "../cli-error.ts";
import type { LocalContext } from "../command-context.ts";
import { EXIT_CODE, type ExitCode } from "../exit-code.ts";

/** Two agents on one machine. */
const THIS_HOST = "localhost,127.0.0.1,::1";

/** Makes an authority where there is none, and certificates for hosts that have none. */
export async function initCertificates(
  { stdout }: LocalContext,
  directory: string,
  hostTexts: readonly string[] = [THIS_HOST],
): Promise<ExitCode> {
  const hosts = hostTexts.map(parseHost);
  const repeated = hosts.find(({ name }, index) => hosts.findIndex((h) => h.name === name) < index);
  if (repeated !== undefined) throw usageError(`--host ${repeated.name} is given twice`);
  try {
    await make(stdout, resolve(directory), hosts);
  } catch (error) {
    if (error instanceof CliError || !isErrno(error)) throw error;
    throw new CliError(
      `certificates cannot be made in ${directory}: ${messageOf(error)}`,
      { code: "directory-unusable", exitCode: EXIT_CODE.failed },
      { cause: error },
    );
  }
  return EXIT_CODE.ok;
}

async function make(
  stdout: LocalContext["stdout"],
  root: string,
  hosts: readonly CertifiedHost[],
): Promise<void> {
  await refuseCertified(root, hosts);
  const isNew = await ensureAuthority(root);
  stdout.write(
    `${isNew ? "new authority" : "authority"}: ${root}/ca-cert.pem; keep ca-key.pem here\n`,
  );
  for (const host of hosts) {
    const path = await certifyHost(root, host);
    stdout.write(`for ${host.names.join(", ")}: ${path}/, to be copied there as VMFERRY_TLS_DIR\n`);
  }
}

function isErrno(error: unknown): boolean {
  return error instanceof Error && typeof (error as NodeJS.ErrnoException).syscall === "string";
}
