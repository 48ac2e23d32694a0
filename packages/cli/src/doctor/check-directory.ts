import { randomUUID } from "node:crypto";
import { rm, stat, writeFile } from "node:fs/promises";
import { userInfo } from "node:os";
import { join, resolve } from "node:path";
import { nearestDirectory } from "./existing-directory.ts";
import { fileTrouble } from "./file-trouble.ts";
import { fails, passes, skips, warns, type Finding } from "./finding.ts";

const GROUP_OR_OTHERS = 0o077;

export interface DirectoryQuestion {
  readonly path: string | undefined;
  /** How it is set, for the hint. */
  readonly setting: string;
  /** Nobody but the agent has to do with it. */
  readonly isPrivate: boolean;
}

/** By writing a file there, as an agent of this user would. */
export async function checkDirectory(question: DirectoryQuestion): Promise<Finding> {
  const { path, setting, isPrivate } = question;
  if (path === undefined) return skips(`not looked at: give it with ${setting}`);
  const { username } = userInfo();
  try {
    const directory = await nearestDirectory(path);
    await writeAndRemove(join(directory, `.vmferry-doctor-${randomUUID()}`));
    if (directory !== resolve(path)) {
      return passes(`${path} is not there yet; ${username} can make it in ${directory}`);
    }
    const { mode } = await stat(directory);
    if (isPrivate && (mode & GROUP_OR_OTHERS) !== 0) {
      const modeText = (mode & 0o777).toString(8).padStart(4, "0");
      return warns(`${path} is open to other users (mode ${modeText})`, `chmod 0700 ${path}`);
    }
    return passes(`${username} can write to ${path}`);
  } catch (error) {
    return fails(
      fileTrouble(path, error),
      `Make ${path} a directory of the user ${username}, run this as the agent's user, or set another one with ${setting}.`,
    );
  }
}

async function writeAndRemove(file: string): Promise<void> {
  await writeFile(file, "", { flag: "wx", mode: 0o600 });
  await rm(file);
}
