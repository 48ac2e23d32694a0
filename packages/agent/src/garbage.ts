/**
 * How this process treats the garbage of bulk transfer: buffers of 64 to 256 KiB that live for a
 * millisecond. V8 by default starts a full collection for every few tens of MiB of them, which cost
 * as much CPU as everything else the agents do; the first setting makes it look at the heap as a
 * whole instead. `collectYoungGarbage` then keeps the process small at the price of a short
 * collection now and then. Measured in docs/decisions/0005.
 */
import { setFlagsFromString } from "node:v8";
import { runInNewContext } from "node:vm";

type Collect = (options: { readonly type: "minor" }) => void;

let collect: Collect | null = null;

/** To be called once, before anything is transferred. */
export function tuneGarbageCollection(): void {
  setFlagsFromString("--external-memory-accounted-in-global-limit");
  setFlagsFromString("--expose-gc");
  collect = runInNewContext("gc") as Collect;
}

/** Frees short-lived buffers now; does nothing in a process that was not tuned. */
export function collectYoungGarbage(): void {
  collect?.({ type: "minor" });
}
