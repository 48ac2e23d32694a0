import { execFile } from "node:child_process";

const RUN_MS_MAX = 15_000;
const OUTPUT_BYTES_MAX = 1 << 20;

/** What the program writes to its standard output. Rejects where it fails or does not end. */
export async function runProgramHere(
  program: string,
  words: readonly string[],
  input = "",
): Promise<string> {
  const { promise, resolve, reject } = Promise.withResolvers<string>();
  const options = {
    timeout: RUN_MS_MAX,
    maxBuffer: OUTPUT_BYTES_MAX,
    killSignal: "SIGKILL",
  } as const;
  const child = execFile(program, words, options, (error, stdout) => {
    if (error === null) resolve(stdout);
    else reject(error);
  });
  // It may end before it has read everything; what it wrote by then counts.
  child.stdin?.on("error", () => undefined);
  child.stdin?.end(input);
  return promise;
}
