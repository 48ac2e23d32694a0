import { AgentError } from "@vmferry/core";

/**
 * QEMU was given everything, and does not say that it has it. Seen in its sources alone: the thread
 * of its urgent channel ends without a word where it cannot place a page.
 */
export class OverdueEnd extends AgentError<{ readonly code: "memory-end-overdue" }> {
  constructor() {
    super(
      "QEMU was given all of the guest's memory and does not say that it has it: it may have failed " +
        "to place a page, and a vCPU may wait for it",
      { code: "memory-end-overdue" },
    );
  }
}
