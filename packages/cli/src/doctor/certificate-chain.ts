import type { X509Certificate } from "node:crypto";

/** What nobody builds a chain beyond. */
const LENGTH_MAX = 8;

/**
 * Whether `chain`, whose first certificate is whose trust is asked for, leads to one of `authorities`.
 * Signatures are verified, validity is not.
 */
export function leadsTo(
  authorities: readonly X509Certificate[],
  chain: readonly X509Certificate[],
): boolean {
  let [current] = chain;
  for (let length = 0; current !== undefined && length < LENGTH_MAX; length++) {
    const subject = current;
    const isIssuer = (candidate: X509Certificate): boolean =>
      candidate.ca && subject.checkIssued(candidate) && subject.verify(candidate.publicKey);
    if (authorities.some(isIssuer)) return true;
    current = chain.find((candidate) => candidate !== subject && isIssuer(candidate));
  }
  return false;
}
