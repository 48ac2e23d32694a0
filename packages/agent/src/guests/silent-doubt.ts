/** How a guest is shown whose QEMU lives and does not answer: nobody can judge it yet. */
import { newMigrationObject, type NewMigration } from "../migrations/new-migration-object.ts";
import type { MigrationStore } from "../migrations/migration-store.ts";
import type { SilentGuest } from "./earlier-guests.ts";

export function silentText({ record: { definition }, pid }: SilentGuest): string {
  return (
    `The QEMU of guest ${definition.name} (process ${pid}) lives and does not answer. Nothing is ` +
    "done with the guest, and QEMU is asked until it answers or is gone: look at what holds it, " +
    "such as a stopped process, or storage that does not answer."
  );
}

/** Shows a hand-over of it that is not over; whoever goes on with it once QEMU answers finds it there. */
export function showSilentDoubt(
  store: MigrationStore,
  silent: SilentGuest,
  migration: Omit<NewMigration, "guest">,
): void {
  const guest = silent.record.definition.name;
  store.createUnlessKnown({ ...newMigrationObject({ ...migration, guest }), mayCancel: false });
  store.inDoubt(migration.id, silentText(silent));
}
