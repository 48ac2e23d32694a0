import {
  allNodes,
  type CommandNode,
  type FlagNode,
  type OperandNode,
} from "./command-line-tree.ts";

/** A condition tells at which command the line is; each command's words are offered there alone. */
export function fishScript(tree: CommandNode): string {
  const nodes = allNodes(tree);
  const paths = nodes.slice(1).map(({ path }) => quoted(path));
  const valueFlags = nodes.flatMap(({ flags }) =>
    flags.flatMap(({ names, value }) => (value === null ? [] : names)),
  );
  return `# fish completion for ${tree.name}; to load it: ${tree.name} completion fish | source
function __${tree.name}_at
    set -l path ${tree.name}
    set -l given 0
    set -l value no
    for word in (commandline -opc)[2..-1]
        if test $value = yes
            set value no
        else if contains -- $word ${[...new Set(valueFlags)].join(" ")}
            set value yes
        else if contains -- "$path $word" ${paths.join(" ")}
            set path "$path $word"
        else if not string match -q -- '-*' $word
            set given (math $given + 1)
        end
    end
    test "$path" = "$argv[1]"; or return 1
    test (count $argv) -lt 2; or test $given = "$argv[2]"
end
complete -c ${tree.name} -f
${nodes.flatMap((node) => linesOf(tree.name, node)).join("\n")}
`;
}

function linesOf(program: string, node: CommandNode): string[] {
  const head = `complete -c ${program} -n`;
  const at = `${head} ${quoted(`__${program}_at ${quoted(node.path)}`)}`;
  return [
    ...node.flags.map((flag) => `${at} ${flagWords(flag)}`),
    ...node.children.map(({ name, description }) => `${at} -a ${name} -d ${quoted(description)}`),
    ...node.operands.flatMap((operand, index) => {
      if (operand.choices.length === 0 && !operand.isFile) return [];
      const place = `${head} ${quoted(`__${program}_at ${quoted(node.path)} ${index}`)}`;
      return [`${place} ${valueWords(operand)}`];
    }),
  ];
}

function flagWords({ names, description, value }: FlagNode): string {
  const words = names.map((name) =>
    name.startsWith("--") ? `-l ${name.slice(2)}` : `-s ${name[1] ?? ""}`,
  );
  const valued = value === null ? [] : ["-r", valueWords(value)];
  return [...words, ...valued, "-d", quoted(description)].join(" ");
}

function valueWords({ choices, isFile }: OperandNode): string {
  if (isFile) return "-F";
  return choices.length === 0 ? "-f" : `-f -a ${quoted(choices.join(" "))}`;
}

/** In fish, too, a backslash escapes a quote within quotes. */
function quoted(text: string): string {
  return `'${text.replaceAll(/[\\']/g, "\\$&")}'`;
}
