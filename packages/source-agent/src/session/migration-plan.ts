import type { MigrationLimits, MigrationRequest } from "@vmferry/protocol";

/** What one migration is to do, as far as pre-copy is concerned. */
export interface MigrationPlan {
  readonly id: string;
  readonly destination: string;
  readonly onStall: Exclude<MigrationRequest["onStall"], "post-copy">;
  readonly limits: MigrationLimits;
}
