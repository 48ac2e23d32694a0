/**
 * What opens the page file of a hand-over: made by the source, told to the dest with the offer, kept by
 * each of them for its next life, and never on the share.
 */
import type { PageFileBlock, PageFileSubject } from "./header-codec.ts";
import { pageFilePath, type PageFileOwner } from "./page-file-place.ts";

export interface PageFileKey {
  /** 64 lower-case hex digits. */
  readonly key: string;
  /** Whose memory it is. */
  readonly guestName: string;
  readonly uuid: string;
}

/** A page file by its place, and all that is known of what has to be in it. */
export interface PageFilePlace {
  readonly path: string;
  readonly subject: PageFileSubject;
  readonly secret: Uint8Array;
}

const KEY = /^[0-9a-f]{64}$/;
const UUID = /^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$/;

export function pageFilePlace(
  sharedDir: string,
  { migrationId, epoch }: PageFileOwner,
  { key, blocks }: { readonly key: PageFileKey; readonly blocks: readonly PageFileBlock[] },
): PageFilePlace {
  const { guestName, uuid } = key;
  return {
    path: pageFilePath(sharedDir, { migrationId, epoch }),
    subject: { scope: "missing", migrationId, epoch, guestName, uuid, blocks },
    secret: Buffer.from(key.key, "hex"),
  };
}

/** What an offer says of it; null where nothing of memory goes by a share. */
export function pageFileKeyOf({
  pageFileKey: key,
  guest: { name: guestName },
  uuid,
}: {
  readonly pageFileKey?: string;
  readonly guest: { readonly name: string };
  readonly uuid: string;
}): PageFileKey | null {
  return key === undefined ? null : { key, guestName, uuid };
}

/** What was kept in a file of the agent's own; null where it is none. */
export function asPageFileKey(value: unknown): PageFileKey | null {
  const { key, guestName, uuid } = (value ?? {}) as Partial<Record<keyof PageFileKey, unknown>>;
  if (typeof key !== "string" || !KEY.test(key)) return null;
  if (typeof uuid !== "string" || !UUID.test(uuid)) return null;
  if (typeof guestName !== "string" || guestName === "") return null;
  return { key, guestName, uuid };
}
