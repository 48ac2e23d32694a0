/**
 * A private authority and what it has signed, for a lab, in one directory:
 *
 *   ca-cert.pem, ca-key.pem   the authority; the key never goes to a host
 *   NAME/                     what host NAME gets, as VMFERRY_TLS_DIR wants it
 *
 * A host's directory appears whole or not at all, and none is ever overwritten.
 */
import { access, copyFile, mkdir, mkdtemp, rename, rm } from "node:fs/promises";
import { join } from "node:path";
import { CliError } from "../cli-error.ts";
import { EXIT_CODE } from "../exit-code.ts";
import { subjectAltName, type CertifiedHost } from "./host-names.ts";
import { issueCertificate } from "./openssl.ts";

const AUTHORITY_DAYS = 3650;
const HOST_DAYS = 825;

/** Whether the authority is new. */
export async function ensureAuthority(directory: string): Promise<boolean> {
  await mkdir(directory, { recursive: true, mode: 0o700 });
  const [certPath, keyPath] = authorityPaths(directory);
  const [hasCert, hasKey] = await Promise.all([exists(certPath), exists(keyPath)]);
  if (hasCert && hasKey) return false;
  if (hasCert || hasKey) {
    throw refused(
      `${directory} has ${hasCert ? "ca-cert.pem without ca-key.pem" : "ca-key.pem without ca-cert.pem"}: ` +
        "add the other file, or name a new directory",
    );
  }
  await whole(directory, async (fresh) => {
    const [newCert, newKey] = authorityPaths(fresh);
    await issueCertificate({
      commonName: "vmferry lab authority",
      extensions: {
        basicConstraints: "critical,CA:TRUE,pathlen:0",
        keyUsage: "critical,keyCertSign,cRLSign",
        subjectKeyIdentifier: "hash",
      },
      ...{ days: AUTHORITY_DAYS, certPath: newCert, keyPath: newKey, issuer: null },
    });
    // The certificate last: with it the authority is there.
    await rename(newKey, keyPath);
    await rename(newCert, certPath);
  });
  return true;
}

/** Throws where one of them has a directory already. */
export async function refuseCertified(
  directory: string,
  hosts: readonly CertifiedHost[],
): Promise<void> {
  for (const { name } of hosts) {
    const path = join(directory, name);
    if (await exists(path)) {
      throw refused(`${path} is there already: remove it to have its certificates made anew`);
    }
  }
}

/** Where the host's files are. */
export async function certifyHost(directory: string, host: CertifiedHost): Promise<string> {
  const path = join(directory, host.name);
  const [certPath, keyPath] = authorityPaths(directory);
  await whole(directory, async (fresh) => {
    await copyFile(certPath, join(fresh, "ca-cert.pem"));
    for (const use of ["server", "client"]) {
      await issueCertificate({
        // A name in the subject is limited to 64 characters, and nothing reads it.
        commonName: `vmferry ${use}`,
        extensions: {
          basicConstraints: "critical,CA:FALSE",
          keyUsage: "critical,digitalSignature",
          extendedKeyUsage: `${use}Auth`,
          subjectAltName: subjectAltName(host),
          authorityKeyIdentifier: "keyid",
        },
        days: HOST_DAYS,
        certPath: join(fresh, `${use}-cert.pem`),
        keyPath: join(fresh, `${use}-key.pem`),
        issuer: { certPath, keyPath },
      });
    }
    await rename(fresh, path);
  });
  return path;
}

function authorityPaths(directory: string): [certPath: string, keyPath: string] {
  return [join(directory, "ca-cert.pem"), join(directory, "ca-key.pem")];
}

/** Works in a directory beside the others, of which nothing stays that was not moved out of it. */
async function whole(directory: string, work: (fresh: string) => Promise<void>): Promise<void> {
  const fresh = await mkdtemp(join(directory, ".new-"));
  try {
    await work(fresh);
  } finally {
    await rm(fresh, { recursive: true, force: true });
  }
}

function exists(path: string): Promise<boolean> {
  return access(path).then(
    () => true,
    () => false,
  );
}

function refused(message: string): CliError {
  return new CliError(message, { code: "certificates-exist", exitCode: EXIT_CODE.failed });
}
