import type { Guest } from "@vmferry/agent";
import type { guestRefusals, QmpClient } from "@vmferry/qemu";

/** What checks ask of the guest that shall move. */
export type PreflightGuest = Pick<Guest, "definition" | "accel" | "uuid" | "attachment"> & {
  readonly qmp: Pick<QmpClient, "version" | "execute">;
};

export function refusalInput(guest: PreflightGuest): Parameters<typeof guestRefusals>[0] {
  const { definition, accel, uuid, qmp } = guest;
  return { definition: { ...definition, uuid }, accel, qemuVersion: qmp.version };
}
