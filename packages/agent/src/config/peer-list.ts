import { NAME_PATTERN } from "@vmferry/protocol";
import { isLoopback } from "./listen-address.ts";

/** A host that guests may go to. */
export interface PeerAddress {
  readonly name: string;
  /** `ws://host:port` or `wss://host:port`, as the URL parser writes it. */
  readonly url: string;
}

export interface PeerList {
  readonly peers: readonly PeerAddress[];
  readonly problems: readonly string[];
}

const NAME = new RegExp(NAME_PATTERN);
// No user-info, path or query, nothing that a URL parser reads in its own way, and the port is said.
const PEER_URL = /^wss?:\/\/(?:\[[0-9a-f:.]+\]|[a-z0-9][a-z0-9._-]*):\d{1,5}\/?$/i;

/** Parses `name=ws://host:port,name=wss://host:port`. */
export function parsePeerList(text: string): PeerList {
  const peers: PeerAddress[] = [];
  const problems: string[] = [];
  for (const entry of text.split(",").map((part) => part.trim())) {
    if (entry === "") continue;
    const peer = parsePeer(entry);
    if (typeof peer === "string") problems.push(peer);
    else if (peers.some(({ name }) => name === peer.name)) {
      problems.push(`the name ${peer.name} is given to two peers`);
    } else peers.push(peer);
  }
  return { peers, problems };
}

/** Whether what is sent to this peer can be read on the way. */
export function isPlaintextPeer({ url }: PeerAddress): boolean {
  const { protocol, hostname } = new URL(url);
  return protocol === "ws:" && !isLoopback(hostname.replace(/^\[(.*)\]$/, "$1"));
}

function parsePeer(entry: string): PeerAddress | string {
  const [name = "", ...rest] = entry.split("=");
  const url = rest.join("=");
  if (!NAME.test(name)) return `"${entry}" does not begin with NAME=, of letters, digits, "_.-"`;
  if (!PEER_URL.test(url) || !URL.canParse(url)) {
    return `${name} has to be ws://HOST:PORT or wss://HOST:PORT, without user, path or query`;
  }
  return { name, url: new URL(url).origin };
}
