import { sleep, type Clock } from "@vmferry/core";
import type { RestProgress } from "../postcopy/memory-rest.ts";

const REPORT_MS = 250;

/** Shows what of a guest's memory is still to follow it, until that is over. */
export async function followRest(
  rest: { readonly progress: RestProgress },
  options: {
    readonly clock: Clock;
    readonly show: (progress: RestProgress) => void;
    readonly isOver: () => boolean;
  },
): Promise<void> {
  while (!options.isOver()) {
    options.show(rest.progress);
    await sleep(options.clock, REPORT_MS);
  }
}
