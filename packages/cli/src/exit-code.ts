/** What the command tells scripts; the numbers never change their meaning. */
export const EXIT_CODE = {
  ok: 0,
  failed: 1,
  usage: 2,
  /** The agent refused to begin: nothing was started and the guest was not touched. */
  refused: 3,
  unreachable: 4,
  cancelled: 5,
  waitTimedOut: 124,
  interrupted: 130,
  /** What a shell reports for a command that SIGPIPE ended: whoever read the output has seen enough. */
  pipeClosed: 141,
} as const;

export type ExitCode = (typeof EXIT_CODE)[keyof typeof EXIT_CODE];
