/** What a migration refuses because of where its hand-over is. */
import { ProblemError } from "@vmferry/agent";

export function pastHandOver(): ProblemError {
  return new ProblemError("The guest has been handed over; only the dest can answer now.", {
    code: "past-hand-over",
  });
}

export function notHandedOver(): ProblemError {
  return new ProblemError("The guest has not been handed over; it is the source's.", {
    code: "not-in-doubt",
  });
}
