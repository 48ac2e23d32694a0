import type { X509Certificate } from "node:crypto";

/** What nobody builds a chain beyond. */
const LENGTH_MAX = 8;

/**
 * Whether `chain`, whose first certificate is whose trust is asked for, leads to a root among
 * `authorities`. Signatures are verified, validity is not.
 */
export function leadsTo(
  authorities: readonly X509Certificate[],
  chain: readonly X509Certificate[],
): boolean {
  const issuers = [...authorities, ...chain.slice(1)];
  let [current] = chain;
  for (let length = 0; current !== undefined && length < LENGTH_MAX; length++) {
    const subject = current;
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
