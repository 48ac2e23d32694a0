/**
 * Certificates by the openssl command: Node reads X.509 and cannot write it. A configuration file of
 * our own for each call, so that nothing depends on the host's.
 */
import { execFile } from "node:child_process";
import { rm, writeFile } from "node:fs/promises";
import { promisify } from "node:util";
import { CliError, messageOf } from "../cli-error.ts";
import { EXIT_CODE } from "../exit-code.ts";

const RUN_MS_MAX = 30_000;
const run = promisify(execFile);

export interface CertificateRequest {
  readonly commonName: string;
  readonly extensions: Readonly<Record<string, string>>;
  readonly days: number;
  readonly certPath: string;
  readonly keyPath: string;
  /** Who signs; null signs itself. */
  readonly issuer: { readonly certPath: string; readonly keyPath: string } | null;
}

/** A new key on the curve P-256 and its certificate. */
export async function issueCertificate(request: CertificateRequest): Promise<void> {
  const { certPath, keyPath, issuer, days } = request;
  const configPath = `${certPath}.cnf`;
  await writeFile(configPath, configOf(request), { flag: "wx" });
  const words = ["req", "-x509", "-config", configPath, "-sha256", "-days", `${days}`];
  words.push("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes");
  words.push("-out", certPath, "-keyout", keyPath);
  if (issuer !== null) words.push("-CA", issuer.certPath, "-CAkey", issuer.keyPath);
  try {
    await run("openssl", words, { timeout: RUN_MS_MAX });
  } catch (error) {
    throw failure(error as NodeJS.ErrnoException & { readonly stderr?: string });
  } finally {
    await rm(configPath, { force: true });
  }
}

function configOf({ commonName, extensions }: CertificateRequest): string {
  const lines = Object.entries(extensions).map(([name, value]) => `${name} = ${value}`);
  return [
    "[req]",
    "prompt = no",
    "distinguished_name = subject",
    "x509_extensions = extensions",
    "[subject]",
    `CN = ${commonName}`,
    "[extensions]",
    ...lines,
    "",
  ].join("\n");
}

function failure(error: NodeJS.ErrnoException & { readonly stderr?: string }): CliError {
  const detail = { code: "openssl-failed", exitCode: EXIT_CODE.failed };
  if (error.code === "ENOENT") {
    return new CliError(
      "certificates are made by the openssl command, which this host lacks: install openssl 3 or newer",
      detail,
    );
  }
  const said = error.stderr?.trim() ?? "";
  return new CliError(
    `openssl (3 or newer is needed) made no certificate: ${said === "" ? messageOf(error) : said}`,
    detail,
    { cause: error },
  );
}
