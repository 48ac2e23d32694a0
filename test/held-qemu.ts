// A QEMU that lives and does nothing: whoever asks it something waits, and cannot tell it from one
// that hangs in the kernel.

import { afterEach, expect } from "vitest";
import { assert } from "@vmferry/core";
import { processState } from "./failpoints/process-state.ts";

export interface HeldQemu {
  /** Nothing happens where it does by now, or is gone. */
  goOn(): void;
}

/** What holds a QEMU for the tests of this file; each goes on after its test. Below `useLab`. */
export function useHeldQemus(): (pid: number | null) => Promise<HeldQemu> {
  const all: HeldQemu[] = [];
  afterEach(() => {
    for (const held of all.splice(0)) held.goOn();
  });
  return async (pid) => {
    assert(pid !== null, "its QEMU lives");
    process.kill(pid, "SIGSTOP");
    const held = {
      goOn: () => {
        if (processState(pid) === "stopped") process.kill(pid, "SIGCONT");
      },
    };
    all.push(held);
    await expect.poll(() => processState(pid)).toBe("stopped");
    return held;
  };
}
