/** `cont` to a QEMU that has loaded a guest, and what became of it. */
import { messageOf } from "@vmferry/core";
import { QmpError, type QmpClient } from "@vmferry/qemu";

export type ContOutcome =
  | { readonly kind: "running" }
  | { readonly kind: "stands-still"; readonly reason: string }
  /** QEMU was gone before it was told to start. */
  | { readonly kind: "not-told"; readonly reason: string }
  /** QEMU cannot be asked: it may have run. */
  | { readonly kind: "unknown"; readonly reason: string };

/**
 * Once `cont` succeeded the guest has run, whatever became of it since; only an error with QEMU still
 * standing as it was loaded means that it did not. QEMU is asked first: one that was killed a moment
 * ago is still there for the kernel, and whether it heard a `cont` nobody could tell later.
 */
export async function startLoaded(qmp: Pick<QmpClient, "execute">): Promise<ContOutcome> {
  const end = await endOf(qmp);
  if (end !== null) return { kind: "not-told", reason: end };
  const error = await qmp.execute("cont").then(() => null, messageOf);
  if (error === null) return { kind: "running" };
  try {
    const { running, status } = await qmp.execute("query-status");
    if (running) return { kind: "running" };
    return { kind: status === "paused" ? "stands-still" : "unknown", reason: error };
  } catch {
    return { kind: "unknown", reason: error };
  }
}

/** Null where its connection has not ended: a QEMU that is silent may only wait for a page. */
async function endOf(qmp: Pick<QmpClient, "execute">): Promise<string | null> {
  try {
    await qmp.execute("query-status");
    return null;
  } catch (error) {
    return error instanceof QmpError && error.code === "qmp-closed" ? error.message : null;
  }
}
