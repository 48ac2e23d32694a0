/** How a guest is shown whose QEMU lives and does not answer: nobody can judge it yet. */
import { join } from "node:path";
import type { GuestObject } from "@vmferry/protocol";
import { guestPaths } from "@vmferry/qemu";
import { newMigrationObject, type NewMigration } from "../migrations/new-migration-object.ts";
import type { MigrationStore } from "../migrations/migration-store.ts";
import type { SilentGuest } from "./earlier-guests.ts";
import { guestObject } from "./guest.ts";

export function silentText({ record: { definition }, pid, reason }: SilentGuest): string {
  return (
    `The QEMU of guest ${definition.name} (process ${pid}) lives and does not answer. Nothing is ` +
    "done with the guest, and QEMU is asked until it answers or is gone: look at what holds it, " +
    "such as a stopped process, or storage that does not answer. When it was asked first: " +
    `${reason}.`
  );
}

/** `guestsDir` has a directory for each guest. */
export function silentObject({ record, pid }: SilentGuest, guestsDir: string): GuestObject {
  const { serialLog } = guestPaths(join(guestsDir, record.definition.name));
  const diskSizes = new Map<string, number>();
  return guestObject(record, { state: "in-doubt", pid, serialLog, diskSizes });
}

/** Shows a hand-over of it that is not over; whoever goes on with it once QEMU answers finds it there. */
export function showSilentDoubt(
  store: MigrationStore,
  silent: SilentGuest,
  migration: Omit<NewMigration, "guest" | "startedAt">,
): void {
  const guest = silent.record.definition.name;
  const object = newMigrationObject({ ...migration, guest, startedAt: null });
  store.createUnlessKnown({ ...object, mayCancel: false });
  store.inDoubt(migration.id, silentText(silent));
}
