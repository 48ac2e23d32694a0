import { InvalidArgumentError } from "commander";
import { CliError, usageError } from "../cli-error.ts";
import { parseDurationMs } from "../units/parse-duration.ts";
import { parseBytesPerSecond } from "../units/parse-rate.ts";

const PAGE_MAX = 1000;

export const duration = argument(parseDurationMs);
export const rate = argument(parseBytesPerSecond);
export const count = argument((text) => {
  const number = /^\d{1,4}$/.test(text) ? Number(text) : 0;
  if (number >= 1 && number <= PAGE_MAX) return number;
  throw usageError(`"${text}" is no number from 1 to ${PAGE_MAX}`);
});

/** Commander puts the flag's name before the message of an InvalidArgumentError, and only of one. */
function argument<T>(parse: (text: string) => T): (text: string) => T {
  return (text) => {
    try {
      return parse(text);
    } catch (error) {
      if (error instanceof CliError) throw new InvalidArgumentError(error.message);
      throw error;
    }
  };
}
