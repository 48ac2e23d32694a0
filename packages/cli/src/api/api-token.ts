import { readFileSync } from "node:fs";
import { messageOf, usageError } from "../cli-error.ts";

export type Environment = Readonly<Record<string, string | undefined>>;

// As much as a header line can carry, and nothing that would end it.
const TOKEN = /^[\x21-\x7e]{1,512}$/;

/**
 * The API token, or null where none is set; an empty variable counts as none. There is no flag for
 * the token itself: every user of the host can read command lines.
 */
export function readApiToken(environment: Environment, flagFile?: string): string | null {
  if (flagFile !== undefined) return fromFile(flagFile, "--api-token-file");
  const direct = environment["VMFERRY_API_TOKEN"] ?? "";
  const file = environment["VMFERRY_API_TOKEN_FILE"] ?? "";
  if (direct !== "" && file !== "") {
    throw usageError("VMFERRY_API_TOKEN and VMFERRY_API_TOKEN_FILE are both set: one is enough");
  }
  if (file !== "") return fromFile(file, "VMFERRY_API_TOKEN_FILE");
  return direct === "" ? null : checked(direct, "VMFERRY_API_TOKEN");
}

function fromFile(path: string, setting: string): string {
  let content: string;
  try {
    content = readFileSync(path, "utf8").trimEnd();
  } catch (error) {
    throw usageError(`${setting}: ${messageOf(error)}`);
  }
  return checked(content, `the content of ${path}`);
}

/** The message never shows the token. */
function checked(token: string, origin: string): string {
  if (TOKEN.test(token)) return token;
  throw usageError(`${origin} has to be one word of visible ASCII characters`);
}
