import { BlockList, isIP } from "node:net";

export interface ListenAddress {
  /** An IP address, without brackets, or a host name. */
  readonly host: string;
  /** 0 is any free port. */
  readonly port: number;
}

const LOOPBACK = new BlockList();
LOOPBACK.addSubnet("127.0.0.0", 8, "ipv4");
LOOPBACK.addAddress("::1", "ipv6");

const HOST_NAME = /^[a-z0-9](?:[a-z0-9.-]{0,252}[a-z0-9])?$/i;

/** `host:port` or `[ipv6]:port`; null when the text is neither. */
export function parseListenAddress(text: string): ListenAddress | null {
  const found = /^(?:\[([^\]]+)\]|([^:[\]]+)):(\d{1,5})$/.exec(text);
  if (found === null) return null;
  const [, ipv6, name = "", digits] = found;
  const port = Number(digits);
  if (port > 65_535) return null;
  if (ipv6 !== undefined) return isIP(ipv6) === 6 ? { host: ipv6, port } : null;
  // One name, one socket: `localhost` would be two, of which only the first takes upgrades.
  if (name.toLowerCase() === "localhost") return { host: "127.0.0.1", port };
  return HOST_NAME.test(name) ? { host: name, port } : null;
}

export function formatListenAddress({ host, port }: ListenAddress): string {
  return isIP(host) === 6 ? `[${host}]:${port}` : `${host}:${port}`;
}

/** A name other than `localhost` counts as another host: what it resolves to can change. */
export function isLoopback(host: string): boolean {
  const family = isIP(host);
  if (family === 0) return host.toLowerCase() === "localhost";
  return LOOPBACK.check(host, family === 4 ? "ipv4" : "ipv6");
}
