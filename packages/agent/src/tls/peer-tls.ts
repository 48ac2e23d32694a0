/**
 * One side's TLS between the agents: TLS 1.3 alone, both sides with a certificate of the one private
 * authority. The certificates can be read again while connections are open; those go on with what they
 * were opened with, and every new one is made with the latest.
 */
import { constants } from "node:crypto";
import type { SecureContextOptions } from "node:tls";
import type { ReadinessReason } from "../http/readiness.ts";
import { readCertificates, type Certificates, type TlsUse } from "./read-certificates.ts";

/** Until when one of the files is good. */
export interface CertificateExpiry {
  readonly certificate: "ca" | TlsUse;
  readonly at: Date;
}

export interface PeerTlsOptions extends SecureContextOptions {
  readonly requestCert: true;
  readonly rejectUnauthorized: true;
}

export class PeerTls {
  readonly #directory: string;
  readonly #use: TlsUse;
  readonly #listeners: (() => void)[] = [];
  #certificates: Certificates;

  /** Throws `TlsError` where the files are missing or do not fit together. */
  constructor(directory: string, use: TlsUse) {
    this.#directory = directory;
    this.#use = use;
    this.#certificates = readCertificates(directory, use);
  }

  /** What a server or a connection is made with; both sides ask for the other's certificate. */
  get options(): PeerTlsOptions {
    const { ca, cert, key } = this.#certificates;
    return {
      ...{ ca, cert, key },
      minVersion: "TLSv1.3",
      requestCert: true,
      // Said, as NODE_TLS_REJECT_UNAUTHORIZED changes what is not.
      rejectUnauthorized: true,
      // Whoever comes back shows its certificate again: a ticket would outlive a change of authority.
      secureOptions: constants.SSL_OP_NO_TICKET,
    };
  }

  get expiries(): readonly CertificateExpiry[] {
    const { authorities, own } = this.#certificates;
    // While an authority is replaced the file holds both; the old one may expire there.
    const latestMs = Math.max(...authorities.map(({ validToDate }) => validToDate.getTime()));
    return [
      { certificate: "ca", at: new Date(latestMs) },
      { certificate: this.#use, at: own.validToDate },
    ];
  }

  /** Reads the files again. Throws `TlsError`, and then everything stays as it is. */
  reload(): void {
    this.#certificates = readCertificates(this.#directory, this.#use);
    for (const listener of this.#listeners) listener();
  }

  onReload(listener: () => void): void {
    this.#listeners.push(listener);
  }

  /** Why no peer would accept the certificates at this time, and what to do; null when one would. */
  invalidity(now: Date): string | null {
    const notYet = this.#certificates.own.validFromDate;
    if (now < notYet) {
      return (
        `${this.#use}-cert.pem is valid from ${notYet.toISOString()} only: check this host's clock, ` +
        "or replace it and send SIGHUP to this agent"
      );
    }
    const expired = this.expiries.find(({ at }) => at < now);
    if (expired === undefined) return null;
    return (
      `${expired.certificate}-cert.pem has expired at ${expired.at.toISOString()}: replace it and ` +
      "send SIGHUP to this agent"
    );
  }

  readiness(now: Date): readonly ReadinessReason[] {
    const detail = this.invalidity(now);
    return detail === null ? [] : [{ code: "tls-certificate-invalid", detail }];
  }
}
