// What can stand on a command line, read from the program that also parses it: completion scripts
// are made of nothing else, and so they offer what there is.

import type { Argument, Command, Option } from "commander";

export interface CommandNode {
  /** Space-separated, from the program's name on: "vmferry guest list". */
  readonly path: string;
  readonly name: string;
  readonly description: string;
  readonly children: readonly CommandNode[];
  /** Its own and those of the commands above it. */
  readonly flags: readonly FlagNode[];
  readonly operands: readonly OperandNode[];
}

export interface FlagNode {
  /** With their dashes: "--help" and "-h". */
  readonly names: readonly string[];
  readonly description: string;
  /** Null: it takes no value. */
  readonly value: OperandNode | null;
}

export interface OperandNode {
  readonly name: string;
  /** All that it can be; empty where that is not known. */
  readonly choices: readonly string[];
  readonly isFile: boolean;
  readonly isVariadic: boolean;
}

export function commandLineTree(program: Command): CommandNode {
  return nodeOf(program, { path: "", flags: [] });
}

function nodeOf(
  command: Command,
  above: { readonly path: string; readonly flags: readonly FlagNode[] },
): CommandNode {
  const path = `${above.path} ${command.name()}`.trim();
  // Those that every command understands come with it; --version is understood at the top alone.
  const own = command.createHelp().visibleOptions(command).map(flagOf);
  const inherited = own.filter(
    ({ names }) => !names.some((name) => /^--(help|version)$/.test(name)),
  );
  const passedOn = [...above.flags, ...inherited];
  return {
    path,
    name: command.name(),
    description: command.description(),
    children: command
      .createHelp()
      .visibleCommands(command)
      .map((child) => nodeOf(child, { path, flags: passedOn })),
    flags: [...own, ...above.flags],
    operands: command.registeredArguments.map(operandOf),
  };
}

function flagOf(option: Option): FlagNode {
  const { short, long, description, argChoices = [] } = option;
  const takesValue = option.required || option.optional;
  const name = /<(.+)>/.exec(option.flags)?.[1] ?? "";
  return {
    names: [long, short].filter((text) => text !== undefined),
    description,
    value: takesValue ? operand(name, argChoices, option.variadic) : null,
  };
}

function operandOf(argument: Argument): OperandNode {
  const { argChoices = [], variadic } = argument;
  return operand(argument.name(), argChoices, variadic);
}

/** Files are told by their name in the help. */
function operand(name: string, choices: readonly string[], isVariadic: boolean): OperandNode {
  return { name, choices, isVariadic, isFile: /FILE|DIR|BINARY/.test(name) };
}

/** The node and all below it. */
export function allNodes(node: CommandNode): readonly CommandNode[] {
  return [node, ...node.children.flatMap(allNodes)];
}
