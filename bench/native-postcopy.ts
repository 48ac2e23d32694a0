// QEMU's own post-copy, as management software does it: a first pass of pre-copy, then
// `migrate-start-postcopy`; pages that are asked for have a channel of their own (postcopy-preempt).

import { migrationUri, preparePlainMigration } from "./native-migration.ts";
import type { NativeMigration, NativePair } from "./native-migration.ts";
import type { RawQmpEvent } from "./raw-qmp.ts";

export const POSTCOPY_CAPABILITIES = ["postcopy-ram", "postcopy-preempt"];

/** Resolves when the dest waits for the guest. */
export async function preparePostcopyMigration(pair: NativePair): Promise<NativeMigration> {
  const { source } = pair;
  const plain = await preparePlainMigration(pair);
  return {
    ...plain,
    begin: async () => {
      const secondPass = source.waitFor(isSecondPass);
      await source.execute("migrate", { uri: migrationUri(pair) });
      // Where the migration ends before its second pass, its end is what is told.
      secondPass.then(() => source.execute("migrate-start-postcopy")).catch(() => undefined);
    },
  };
}

function isSecondPass({ event, data }: RawQmpEvent): boolean {
  return event === "MIGRATION_PASS" && Number(data?.["pass"]) >= 2;
}
