/**
 * Everything before the first byte of the guest travels: hello, offer, accept, bulk connections.
 * When it fails, nothing has been touched on either side.
 */
import { agree, ourHello, type Agreement, type ControlMessageOf } from "@vmferry/protocol";
import { asProblemCode, type ControlChannel } from "@vmferry/agent";
import type { OpenBulkConnection, PeerDialer } from "../adapters/peer-dialer.ts";
import { SessionError } from "./session-error.ts";

export interface Identity {
  readonly software: string;
  readonly incarnation: string;
}

export interface PeerSession {
  readonly control: ControlChannel;
  readonly bulk: readonly OpenBulkConnection[];
  readonly agreement: Agreement;
  readonly accept: ControlMessageOf<"accept">;
}

export interface OpenPeerOptions {
  readonly dialer: PeerDialer;
  readonly identity: Identity;
  readonly offer: ControlMessageOf<"offer">;
  readonly signal: AbortSignal;
}

/** Control connection with hellos exchanged. */
export async function greetPeer(
  dialer: PeerDialer,
  identity: Identity,
  signal: AbortSignal,
): Promise<{ control: ControlChannel; agreement: Agreement }> {
  const control = await dialer.control(signal);
  const hello = ourHello(identity);
  control.send(hello);
  const answer = await control.next("hello", "reject");
  if (answer.kind === "reject") throw rejected(answer);
  return { control, agreement: agree(hello, answer) };
}

export async function openPeerSession(options: OpenPeerOptions): Promise<PeerSession> {
  const { dialer, offer, signal } = options;
  const { control, agreement } = await greetPeer(dialer, options.identity, signal);
  control.send(offer);
  const answer = await control.next("accept", "reject");
  if (answer.kind === "reject") throw rejected(answer);
  const bulk = await Promise.all(
    Array.from({ length: offer.bulkConnections }, (_, index) =>
      dialer.bulk(
        {
          kind: "bulk-hello",
          version: agreement.version,
          migrationId: offer.migrationId,
          session: answer.session,
          index,
        },
        signal,
      ),
    ),
  );
  return { control, bulk, agreement, accept: answer };
}

function rejected({ code, text }: ControlMessageOf<"reject">): SessionError {
  return new SessionError(text, { code: asProblemCode(code, "peer-refused") });
}
