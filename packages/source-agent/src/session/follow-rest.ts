import { sleep, type Clock } from "@vmferry/core";

const REPORT_MS = 250;

/** Shows what of a guest is still to follow it, until that is over. */
export async function followRest<Progress>(
  rest: { readonly progress: Progress },
  options: {
    readonly clock: Clock;
    readonly show: (progress: Progress) => void;
    readonly isOver: () => boolean;
  },
): Promise<void> {
  while (!options.isOver()) {
    options.show(rest.progress);
    await sleep(options.clock, REPORT_MS);
  }
}
