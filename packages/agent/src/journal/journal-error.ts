import { AgentError, messageOf } from "@vmferry/core";

export type JournalErrorDetail =
  /** Somebody else has it open. */
  | { readonly code: "journal-locked"; readonly path: string }
  /** It does not say what was written to it, or is another guest's. A person has to decide. */
  | { readonly code: "journal-damaged"; readonly path: string; readonly reason: string }
  /** A newer agent wrote it. */
  | { readonly code: "journal-too-new"; readonly path: string; readonly version: number }
  /** It cannot be opened: the file system's reasons. */
  | { readonly code: "journal-not-usable"; readonly path: string; readonly reason: string }
  /** There is no room for the record. Nothing was written, and the journal is as good as before. */
  | { readonly code: "journal-full"; readonly path: string }
  /** Writing or syncing failed, now or earlier; from then on nothing is recorded any more. */
  | {
      readonly code: "journal-failed";
      readonly path: string;
      /**
       * Whether a restarted agent may find the record that this error is about. Where that is not
       * known, what the record would have allowed must not be done, and its opposite neither.
       */
      readonly recorded: "no" | "unknown";
    };

export class JournalError extends AgentError<JournalErrorDetail> {}

export function journalDamaged(path: string, reason: string): JournalError {
  return new JournalError(`the journal ${path} is damaged: ${reason}`, {
    code: "journal-damaged",
    path,
    reason,
  });
}

export function journalTooNew(path: string, version: number): JournalError {
  return new JournalError(
    `the journal ${path} was written by a newer agent (version ${version} of its format); ` +
      "start that one, or a newer one",
    { code: "journal-too-new", path, version },
  );
}

export function journalNotUsable(path: string, cause: unknown): JournalError {
  const reason = messageOf(cause);
  return new JournalError(
    `the journal ${path} cannot be used: ${reason}`,
    { code: "journal-not-usable", path, reason },
    { cause },
  );
}
