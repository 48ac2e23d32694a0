import { allNodes, type CommandNode, type OperandNode } from "./command-line-tree.ts";

/**
 * The function walks over the words before the cursor, steps over the values of flags, and so knows
 * the command and how many operands it has been given; then it offers what may come next.
 */
export function bashScript(tree: CommandNode): string {
  const nodes = allNodes(tree);
  return `# bash completion for ${tree.name}; to load it: source <(${tree.name} completion bash)
_${tree.name}() {
  local cur=\${COMP_WORDS[COMP_CWORD]} prev=\${COMP_WORDS[COMP_CWORD - 1]}
  local path=${tree.name} given=0 i word
  COMPREPLY=()
  # bash takes --flag=value apart
  if [[ $cur == "=" ]]; then cur=
  elif [[ $prev == "=" ]]; then prev=\${COMP_WORDS[COMP_CWORD - 2]}; fi
  for ((i = 1; i < COMP_CWORD; i++)); do
    word=\${COMP_WORDS[i]}
    case "$path $word" in
${caseArms(pathArms(nodes))}
${caseArms(valueFlagArms(nodes))}
      *" "-* | *" =") ;;
      *) given=$((given + 1)) ;;
    esac
  done
  case "$path $prev" in
${caseArms(valueArms(nodes))}
  esac
  if [[ $cur == -* ]]; then
    case $path in
${caseArms(flagArms(nodes))}
    esac
    return
  fi
  case "$path:$given" in
${caseArms(operandArms(nodes))}
  esac
}
complete -F _${tree.name} ${tree.name}
`;
}

interface Arm {
  readonly patterns: readonly string[];
  readonly body: string;
}

/** What leads to the same is written once. */
function caseArms(arms: readonly Arm[]): string {
  const byBody = Map.groupBy(arms, ({ body }) => body);
  return [...byBody]
    .map(([body, same]) => {
      const patterns = same.flatMap((arm) => arm.patterns).join(" | ");
      return `      ${patterns}) ${body} ;;`;
    })
    .join("\n");
}

function pathArms(nodes: readonly CommandNode[]): Arm[] {
  const patterns = nodes.slice(1).map(({ path }) => quoted(path));
  return [{ patterns, body: 'path="$path $word" given=0' }];
}

/** A value is no operand. With \`=\` before it, it is one word further away. */
function valueFlagArms(nodes: readonly CommandNode[]): Arm[] {
  const patterns = nodes.flatMap(({ path, flags }) =>
    flags
      .filter(({ value }) => value !== null)
      .flatMap(({ names }) => names.map((name) => quoted(`${path} ${name}`))),
  );
  const body = 'i=$((i + 1)); [[ ${COMP_WORDS[i]} != "=" ]] || i=$((i + 1))';
  return [{ patterns, body }];
}

function valueArms(nodes: readonly CommandNode[]): Arm[] {
  return nodes.flatMap(({ path, flags }) =>
    flags.flatMap(({ names, value }) =>
      value === null
        ? []
        : [
            {
              patterns: names.map((name) => quoted(`${path} ${name}`)),
              body: `${replyOf(value)}; return`,
            },
          ],
    ),
  );
}

function flagArms(nodes: readonly CommandNode[]): Arm[] {
  return nodes.map(({ path, flags }) => ({
    patterns: [quoted(path)],
    body: replyWith(flags.flatMap(({ names }) => names.slice(0, 1))),
  }));
}

function operandArms(nodes: readonly CommandNode[]): Arm[] {
  return nodes.flatMap(({ path, children, operands }) => {
    if (children.length > 0) {
      return [
        { patterns: [quoted(`${path}:0`)], body: replyWith(children.map((one) => one.name)) },
      ];
    }
    return operands.flatMap((operand, index) =>
      operand.choices.length === 0 && !operand.isFile
        ? []
        : [{ patterns: [quoted(`${path}:${index}`)], body: replyOf(operand) }],
    );
  });
}

function replyOf({ choices, isFile }: OperandNode): string {
  if (isFile) return 'compopt -o filenames; mapfile -t COMPREPLY < <(compgen -f -- "$cur")';
  return choices.length === 0 ? ":" : replyWith(choices);
}

function replyWith(words: readonly string[]): string {
  return `COMPREPLY=($(compgen -W ${quoted(words.join(" "))} -- "$cur"))`;
}

function quoted(text: string): string {
  return `'${text.replaceAll("'", "'\\''")}'`;
}
