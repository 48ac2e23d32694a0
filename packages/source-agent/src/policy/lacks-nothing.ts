import { PeerError } from "@vmferry/agent";
import { CloseCode } from "@vmferry/protocol";

/**
 * The dest has ended a connection as one that it needs no more: no link was lost. Whether the
 * migration is over is for `complete` to say, which may come a little later.
 */
export function lacksNothing(reason: unknown): boolean {
  if (!(reason instanceof PeerError)) return false;
  const { detail } = reason;
  return detail.code === "peer-lost" && detail.closeCode === CloseCode.DONE;
}
