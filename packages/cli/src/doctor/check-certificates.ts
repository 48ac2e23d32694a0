import { createPrivateKey, X509Certificate, type KeyObject } from "node:crypto";
import { readFile, stat } from "node:fs/promises";
import { join } from "node:path";
import { messageOf } from "../cli-error.ts";
import { leadsTo } from "./certificate-chain.ts";
import { fileTrouble } from "./file-trouble.ts";
import { fails, passes, skips, warns, type Finding } from "./finding.ts";

const DAY_MS = 86_400_000;
const EXPIRES_SOON_DAYS = 30;
const GROUP_OR_OTHERS = 0o077;
const PEM = /-----BEGIN CERTIFICATE-----[\s\S]+?-----END CERTIFICATE-----/g;
const HINT =
  "See docs/tls.md for the files that belong there; `vmferry certs init` makes them for a lab.";

const NOT_SET =
  "not looked at, and needed between hosts only: give their directory with --tls-dir or VMFERRY_TLS_DIR";

/** What each certificate is for, by the object identifier of its extended key usage. */
const ROLES = [
  { name: "server", usage: "1.3.6.1.5.5.7.3.1" },
  { name: "client", usage: "1.3.6.1.5.5.7.3.2" },
] as const;

/** Something that keeps a certificate from being used, or soon will. */
interface Trouble {
  readonly text: string;
  readonly hint: string;
  readonly soon?: true;
}

export async function checkCertificates(
  directory: string | undefined,
  nowMs = Date.now(),
): Promise<Finding> {
  if (directory === undefined) return skips(NOT_SET);
  const troubles: Trouble[] = [];
  let authorities: X509Certificate[] = [];
  try {
    authorities = await readCertificates(join(directory, "ca-cert.pem"));
    for (const authority of authorities) {
      troubles.push(...validityTroubles("ca-cert.pem", authority, nowMs));
      if (!authority.ca)
        troubles.push({ text: "ca-cert.pem is no certificate authority", hint: HINT });
    }
  } catch (error) {
    troubles.push({ text: messageOf(error), hint: HINT });
  }
  for (const role of ROLES) {
    troubles.push(...(await roleTroubles({ directory, role, authorities, nowMs })));
  }
  return findingOf(directory, troubles);
}

function findingOf(directory: string, troubles: readonly Trouble[]): Finding {
  if (troubles.length === 0) return passes(`all files of ${directory} fit together and are valid`);
  const detail = troubles.map(({ text }) => text).join("\n");
  const hint = [...new Set(troubles.map((trouble) => trouble.hint))].join("\n");
  return troubles.every(({ soon }) => soon) ? warns(detail, hint) : fails(detail, hint);
}

interface RoleQuestion {
  readonly directory: string;
  readonly role: (typeof ROLES)[number];
  readonly authorities: readonly X509Certificate[];
  readonly nowMs: number;
}

async function roleTroubles(question: RoleQuestion): Promise<Trouble[]> {
  const { directory, role, authorities, nowMs } = question;
  const certName = `${role.name}-cert.pem`;
  const keyName = `${role.name}-key.pem`;
  const keyPath = join(directory, keyName);
  let chain: readonly X509Certificate[];
  let key: KeyObject;
  try {
    chain = await readCertificates(join(directory, certName));
    key = await readKey(keyPath);
  } catch (error) {
    return [{ text: messageOf(error), hint: HINT }];
  }
  const [own] = chain;
  if (own === undefined) return [];
  const troubles = validityTroubles(certName, own, nowMs);
  const add = (text: string, hint: string): number => troubles.push({ text, hint });
  if (!own.checkPrivateKey(key)) add(`${keyName} is not the key of ${certName}`, HINT);
  if (authorities.length > 0 && !leadsTo(authorities, chain)) {
    add(
      `${certName} is not signed by ca-cert.pem`,
      "Use certificates of one authority on all hosts; its root has to be in ca-cert.pem.",
    );
  }
  // No list at all allows every use.
  const usages = own.keyUsage as readonly string[] | undefined;
  if (usages !== undefined && !usages.includes(role.usage)) {
    add(
      `${certName} is not meant for a ${role.name}`,
      `Issue it with extendedKeyUsage=${role.name}Auth.`,
    );
  }
  if (((await stat(keyPath)).mode & GROUP_OR_OTHERS) !== 0) {
    troubles.push({
      text: `${keyName} is open to other users`,
      hint: `chmod 0600 ${keyPath}`,
      soon: true,
    });
  }
  return troubles;
}

function validityTroubles(name: string, certificate: X509Certificate, nowMs: number): Trouble[] {
  const { validFromDate, validToDate } = certificate;
  const hint = "Renew it, and check the host's clock.";
  if (nowMs < validFromDate.getTime()) {
    return [{ text: `${name} is valid from ${validFromDate.toISOString()} only`, hint }];
  }
  const leftDays = (validToDate.getTime() - nowMs) / DAY_MS;
  if (leftDays < 0) return [{ text: `${name} has expired at ${validToDate.toISOString()}`, hint }];
  if (leftDays > EXPIRES_SOON_DAYS) return [];
  return [{ text: `${name} expires at ${validToDate.toISOString()}`, hint, soon: true }];
}

/** Everything that the file holds; the first is the one that it is about. */
async function readCertificates(path: string): Promise<X509Certificate[]> {
  const blocks = (await readText(path)).match(PEM) ?? [];
  if (blocks.length === 0) throw new Error(`${path} holds no certificate in PEM`);
  return blocks.map((block) => parsed(path, () => new X509Certificate(block)));
}

async function readKey(path: string): Promise<KeyObject> {
  const pem = await readText(path);
  return parsed(path, () => createPrivateKey(pem));
}

async function readText(path: string): Promise<string> {
  try {
    return await readFile(path, "utf8");
  } catch (error) {
    throw new Error(fileTrouble(path, error), { cause: error });
  }
}

function parsed<T>(path: string, parse: () => T): T {
  try {
    return parse();
  } catch (error) {
    throw new Error(`${path} cannot be read: ${messageOf(error)}`, { cause: error });
  }
}
