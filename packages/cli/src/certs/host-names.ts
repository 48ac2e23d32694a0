import { isIP } from "node:net";
import { usageError } from "../cli-error.ts";

/** A host that gets certificates. */
export interface CertifiedHost {
  /** Of its directory, and the first of its names. */
  readonly name: string;
  /** What it can be dialled by: DNS names and IP addresses. */
  readonly names: readonly string[];
}

/** What also ends in OpenSSL's configuration file: no character that means anything there. */
const LABEL = /^[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?$/i;
const NAME_CHARACTERS_MAX = 253;

/** A host with more than one name says them in one word: `host-b,10.0.0.2`. */
export function parseHost(text: string): CertifiedHost {
  const names = text.split(",");
  const [name = ""] = names;
  for (const one of names) {
    if (isIP(one) === 0 && !isDnsName(one)) {
      throw usageError(
        `--host ${text}: "${one}" is no DNS name and no IP address; a host with several is NAME,NAME,…`,
      );
    }
  }
  return { name, names };
}

/** As a certificate's subjectAltName says it. */
export function subjectAltName({ names }: CertifiedHost): string {
  return names.map((name) => `${isIP(name) === 0 ? "DNS" : "IP"}:${name}`).join(",");
}

function isDnsName(text: string): boolean {
  return text.length <= NAME_CHARACTERS_MAX && text.split(".").every((label) => LABEL.test(label));
}
