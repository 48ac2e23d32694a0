/**
 * The files of `VMFERRY_TLS_DIR` that one side of a connection needs. What is wrong with them is found
 * here, and told by the file's name, before OpenSSL says the same in its own words or a peer in none.
 * That a certificate has expired is no fault of the files: `PeerTls` says it when it is so.
 */
import { createPrivateKey, X509Certificate, type KeyObject } from "node:crypto";
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { createSecureContext } from "node:tls";
import { messageOf } from "@vmferry/core";
import { TlsError } from "./tls-error.ts";

export type TlsUse = "server" | "client";

export interface Certificates {
  /** As TLS takes them, in PEM. */
  readonly ca: string;
  readonly cert: string;
  readonly key: string;
  readonly authorities: readonly X509Certificate[];
  /** The certificate that the peer gets to see. */
  readonly own: X509Certificate;
}

/** By the object identifier of the extended key usage. */
const USAGES: Readonly<Record<TlsUse, string>> = {
  server: "1.3.6.1.5.5.7.3.1",
  client: "1.3.6.1.5.5.7.3.2",
};
const PEM = /-----BEGIN CERTIFICATE-----[\s\S]+?-----END CERTIFICATE-----/g;
/** What nobody builds a chain beyond. */
const CHAIN_LENGTH_MAX = 8;

/** Throws `TlsError`. */
export function readCertificates(directory: string, use: TlsUse): Certificates {
  const problems: string[] = [];
  const attempt = <T>(read: () => T): T | null => {
    try {
      return read();
    } catch (error) {
      problems.push(messageOf(error));
      return null;
    }
  };
  const ca = attempt(() => readPem(directory, "ca-cert.pem", parseCertificates));
  const cert = attempt(() => readPem(directory, `${use}-cert.pem`, parseCertificates));
  const key = attempt(() => readPem(directory, `${use}-key.pem`, createPrivateKey));
  const own = cert?.parsed[0];
  if (ca === null || cert === null || key === null || own === undefined) throw unusable(problems);
  problems.push(
    ...mismatches(use, { authorities: ca.parsed, chain: cert.parsed, key: key.parsed }),
  );
  if (problems.length > 0) throw unusable(problems);
  // What fits together may still be too weak: a server that takes it up must not be who finds out.
  const pem = { ca: ca.pem, cert: cert.pem, key: key.pem };
  if (attempt(() => createSecureContext(pem)) === null) {
    throw unusable(problems.map((problem) => `OpenSSL does not take ${use}-cert.pem: ${problem}`));
  }
  return { ...pem, authorities: ca.parsed, own };
}

interface Parts {
  readonly authorities: readonly X509Certificate[];
  /** The own certificate first. */
  readonly chain: readonly X509Certificate[];
  readonly key: KeyObject;
}

function mismatches(use: TlsUse, { authorities, chain, key }: Parts): string[] {
  const [own] = chain;
  const problems: string[] = [];
  if (!authorities.every((authority) => authority.ca)) {
    problems.push(
      "ca-cert.pem holds a certificate that is no authority's: put the CA's there alone",
    );
  }
  if (own === undefined) return problems;
  if (!own.checkPrivateKey(key)) {
    problems.push(`${use}-key.pem is not the key of ${use}-cert.pem: put both of one issue there`);
  }
  if (!authorities.some(isRoot)) {
    problems.push("ca-cert.pem holds an intermediate authority alone: put its root there as well");
  } else if (!leadsTo(authorities, chain)) {
    problems.push(
      `${use}-cert.pem is not signed by ca-cert.pem: use certificates of one authority on all hosts`,
    );
  }
  // No list at all allows every use. The type of Node's declarations is too narrow.
  const usages = own.keyUsage as readonly string[] | undefined;
  if (usages !== undefined && !usages.includes(USAGES[use])) {
    problems.push(
      `${use}-cert.pem is not meant for a TLS ${use}: issue it with extendedKeyUsage=${use}Auth`,
    );
  }
  return problems;
}

/** Whether signatures lead from the first of `chain` to a root among the authorities. */
function leadsTo(
  authorities: readonly X509Certificate[],
  chain: readonly X509Certificate[],
): boolean {
  const issuers = [...authorities, ...chain.slice(1)];
  let [current] = chain;
  for (let length = 0; current !== undefined && length < CHAIN_LENGTH_MAX; length++) {
    const subject: X509Certificate = current;
    if (isRoot(subject)) {
      return authorities.some(({ fingerprint256 }) => fingerprint256 === subject.fingerprint256);
    }
    current = issuers.find(
      (candidate) =>
        candidate.ca && subject.checkIssued(candidate) && subject.verify(candidate.publicKey),
    );
  }
  return false;
}

function isRoot(certificate: X509Certificate): boolean {
  return certificate.checkIssued(certificate);
}

/** The content and what it says; the error names the file. */
function readPem<T>(
  directory: string,
  name: string,
  parse: (pem: string) => T,
): { readonly pem: string; readonly parsed: T } {
  const path = join(directory, name);
  let pem: string;
  try {
    pem = readFileSync(path, "utf8");
  } catch (error) {
    throw new Error(`${name} cannot be read: ${messageOf(error)}`, { cause: error });
  }
  try {
    return { pem, parsed: parse(pem) };
  } catch (error) {
    throw new Error(`${name} cannot be used: ${messageOf(error)}`, { cause: error });
  }
}

function parseCertificates(pem: string): X509Certificate[] {
  const blocks = pem.match(PEM) ?? [];
  if (blocks.length === 0) throw new Error("it holds no certificate in PEM");
  return blocks.map((block) => new X509Certificate(block));
}

function unusable(problems: readonly string[]): TlsError {
  return new TlsError(problems.map((problem) => `VMFERRY_TLS_DIR: ${problem}`).join("\n"), {
    code: "tls-files-unusable",
    problems,
  });
}
