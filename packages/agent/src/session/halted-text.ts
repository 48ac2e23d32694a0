import { messageOf } from "@vmferry/core";

/** What a person is told of a hand-over of which a record could not be written. */
export function haltedText(error: unknown): string {
  return (
    `${messageOf(error)}. Nothing more is done with the guest, and nothing undone: make the state ` +
    "directory writable again, and start this agent anew. It goes on by what it reads then."
  );
}
