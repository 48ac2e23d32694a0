import { createServer as createHttpServer, type RequestListener, type Server } from "node:http";
import { createServer as createHttpsServer } from "node:https";
import type { TLSSocket } from "node:tls";
import { tlsRefusal, type PeerTls } from "@vmferry/agent";

const HEADERS_MS_MAX = 5000;
const HANDSHAKE_MS_MAX = 5000;

/** Somebody whom TLS did not let in. */
export interface TlsStranger {
  readonly address: string | undefined;
  readonly reason: string;
}

/**
 * A server for upgrades, with TLS or without. With it the first byte that the HTTP parser sees comes
 * from somebody with a certificate of the private authority.
 */
export function createPeerServer(
  tls: PeerTls | null,
  onRequest: RequestListener,
  onStranger: (stranger: TlsStranger) => void,
): Server {
  const limits = { headersTimeout: HEADERS_MS_MAX };
  if (tls === null) return createHttpServer(limits, onRequest);
  const options = { ...limits, handshakeTimeout: HANDSHAKE_MS_MAX };
  const server = createHttpsServer({ ...options, ...tls.options }, onRequest);
  tls.onReload(() => {
    server.setSecureContext(tls.options);
  });
  server.on("tlsClientError", (error: NodeJS.ErrnoException, socket) => {
    const reason = refusalOf(error, socket);
    if (reason !== null) onStranger({ address: socket.remoteAddress, reason });
  });
  return server;
}

/** Null for who came and went without having been refused, as port scanners and probes do. */
function refusalOf(error: NodeJS.ErrnoException, socket: TLSSocket): string | null {
  // OpenSSL's verdict is a code here, whatever the declarations say.
  const verdict: unknown = socket.authorizationError;
  if (typeof verdict === "string") return tlsRefusal(verdict) ?? verdict;
  return error.code === "ECONNRESET" ? null : (tlsRefusal(error.code) ?? error.message);
}
