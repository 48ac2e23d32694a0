/** Names one stun of one migration: what every ownership message is about. */
export interface StunRef {
  readonly migrationId: string;
  /** The epoch that the dest would own; the source owns `epoch - 1` until the hand-over. */
  readonly epoch: number;
  /** Counts the stuns of a migration, so that a PREPARED for an earlier one is not believed. */
  readonly generation: number;
}

export function sameStun(a: StunRef, b: StunRef): boolean {
  return a.migrationId === b.migrationId && a.epoch === b.epoch && a.generation === b.generation;
}
