/**
 * What keeps two agents from agreeing on TLS, in words that say what to do, by the code of Node's error
 * or of OpenSSL's verdict on the other's certificate.
 */
const RENEW = "replace it there and send SIGHUP to that agent";
const OTHER_AUTHORITY =
  "its certificate is not of the authority in ca-cert.pem here: use one authority on all hosts";

const REFUSALS: Readonly<Record<string, string>> = {
  CERT_HAS_EXPIRED: `its certificate, or its authority's, has expired: ${RENEW}; also compare the hosts' clocks`,
  CERT_NOT_YET_VALID: `its certificate is not valid yet: compare the hosts' clocks, or ${RENEW}`,
  DEPTH_ZERO_SELF_SIGNED_CERT: OTHER_AUTHORITY,
  SELF_SIGNED_CERT_IN_CHAIN: OTHER_AUTHORITY,
  UNABLE_TO_GET_ISSUER_CERT_LOCALLY: OTHER_AUTHORITY,
  UNABLE_TO_VERIFY_LEAF_SIGNATURE: OTHER_AUTHORITY,
  CERT_SIGNATURE_FAILURE: OTHER_AUTHORITY,
  UNABLE_TO_GET_ISSUER_CERT: "its chain of certificates is not whole: put the chain into its file",
  ERR_SSL_PEER_DID_NOT_RETURN_A_CERTIFICATE: "it shows no certificate: set VMFERRY_TLS_DIR there",
  INVALID_PURPOSE:
    "its certificate is not meant for this side: issue it with the extendedKeyUsage of its file's name",
  ERR_SSL_UNSUPPORTED_PROTOCOL: "it does not speak TLS 1.3",
  ERR_SSL_TLSV1_ALERT_PROTOCOL_VERSION: "it does not speak TLS 1.3",
  ERR_SSL_HTTP_REQUEST:
    "it speaks without TLS: set VMFERRY_TLS_DIR there, and name this host wss:// in its VMFERRY_PEERS",
};

/** Null for a code that does not tell what is wrong. */
export function tlsRefusal(code: unknown): string | null {
  return typeof code === "string" && Object.hasOwn(REFUSALS, code)
    ? (REFUSALS[code] ?? null)
    : null;
}
