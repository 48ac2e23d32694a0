import {
  allNodes,
  type CommandNode,
  type FlagNode,
  type OperandNode,
} from "./command-line-tree.ts";

/** A function a command; those with commands below them hand the rest of the line on. */
export function zshScript(tree: CommandNode): string {
  const functions = allNodes(tree).map(functionOf).join("\n");
  return `#compdef ${tree.name}
# zsh completion for ${tree.name}; to load it: source <(${tree.name} completion zsh)
${functions}
if [[ $funcstack[1] == _${tree.name} ]]; then _${tree.name} "$@"
else compdef _${tree.name} ${tree.name}; fi
`;
}

function functionOf(node: CommandNode): string {
  const specifications = [
    ...node.flags.map(flagSpecification),
    ...(node.children.length > 0
      ? [quoted("1: :->command"), quoted("*:: :->rest")]
      : node.operands.map(operandSpecification)),
  ];
  const call = `_arguments -C ${specifications.join(" \\\n    ")}`;
  if (node.children.length === 0) return `${nameOf(node)}() {\n  ${call}\n}`;
  const described = node.children.map(({ name, description }) =>
    quoted(`${name}:${description.replaceAll(":", "\\:")}`),
  );
  const calls = node.children.map((child) => `      ${child.name}) ${nameOf(child)} ;;`);
  return `${nameOf(node)}() {
  local context state line
  typeset -A opt_args
  ${call}
  case $state in
    command)
      local -a commands=(${described.join(" \\\n        ")})
      _describe command commands ;;
    rest) case $line[1] in
${calls.join("\n")}
    esac ;;
  esac
}`;
}

function flagSpecification({ names, description, value }: FlagNode): string {
  const [first = ""] = names;
  const text = description.replaceAll(/[[\]:]/g, "\\$&");
  const suffix = value === null ? "" : `:${value.name}:${actionOf(value)}`;
  return quoted(`${first}${value === null ? "" : "="}[${text}]${suffix}`);
}

function operandSpecification(operand: OperandNode, index: number): string {
  const position = operand.isVariadic ? "*" : String(index + 1);
  return quoted(`${position}:${operand.name}:${actionOf(operand)}`);
}

function actionOf({ choices, isFile }: OperandNode): string {
  if (isFile) return "_files";
  return choices.length === 0 ? " " : `(${choices.join(" ")})`;
}

function nameOf({ path }: CommandNode): string {
  return `_${path.replaceAll(/[^a-z]/g, "_")}`;
}

function quoted(text: string): string {
  return `'${text.replaceAll("'", "'\\''")}'`;
}
