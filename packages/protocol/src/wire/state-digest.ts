/** One text over the digests of memory and of every disk: equal texts mean the same guest. */
export function stateDigest(digests: {
  readonly ramDigest: string;
  readonly diskDigests: readonly string[];
}): string {
  return [digests.ramDigest, ...digests.diskDigests].join(":");
}
