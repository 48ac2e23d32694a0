import type { CommandNode } from "./command-line-tree.ts";
import { bashScript } from "./bash-script.ts";
import { fishScript } from "./fish-script.ts";
import { zshScript } from "./zsh-script.ts";

export const SHELLS = ["bash", "zsh", "fish"] as const;
export type Shell = (typeof SHELLS)[number];

const SCRIPTS: Readonly<Record<Shell, (tree: CommandNode) => string>> = {
  bash: bashScript,
  zsh: zshScript,
  fish: fishScript,
};

/** What the shell has to read to complete the program's command lines. */
export function completionScript(shell: Shell, tree: CommandNode): string {
  return SCRIPTS[shell](tree);
}
