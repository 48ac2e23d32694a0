/**
 * What a QEMU could do on this host, asked of itself: what it needs of the processor and of
 * userfaultfd depends on its version, on the kernel and on who runs it. It starts without a machine,
 * opens nothing, and ends at once. What it lacks nothing for is not asked again before something
 * changes that the answer depends on.
 */
import { execFile } from "node:child_process";
import { readFile, stat } from "node:fs/promises";
import { messageOf } from "@vmferry/core";
import { readList, QmpFields } from "../qmp/qmp-fields.ts";
import type { Accelerator } from "./guest-definition.ts";
import { GuestError } from "./guest-error.ts";

export interface QemuAnswers {
  /** By the name of the CPU model: what this host lacks of it. */
  readonly cpuModels: ReadonlyMap<string, readonly string[]>;
  /** Why it could not take memory after a hand-over; empty where it could. */
  readonly postCopyRefusal: string;
}

const RUN_MS_MAX = 4000;
const OUTPUT_BYTES_MAX = 4 * 1024 * 1024;
const POST_COPY = { capability: "postcopy-ram", state: true };
const COMMANDS = [
  { execute: "qmp_capabilities" },
  { execute: "query-cpu-definitions", id: "cpus" },
  {
    execute: "migrate-set-capabilities",
    arguments: { capabilities: [POST_COPY] },
    id: "post-copy",
  },
  { execute: "quit" },
];

/** A module of KVM that is loaded anew makes its device anew. */
const DEVICES = ["/dev/kvm", "/dev/userfaultfd"];
const USERFAULTFD_FOR_ALL = "/proc/sys/vm/unprivileged_userfaultfd";

interface Asked {
  /** As they were before. */
  readonly circumstances: string;
  readonly answers: Promise<QemuAnswers>;
}

/** By path and accelerator: those who ask for the same share one process. */
const asked = new Map<string, Asked>();

/** `path`: an executable. Rejects with `qemu-not-usable`. */
export async function askQemu(path: string, accel: Accelerator): Promise<QemuAnswers> {
  const key = JSON.stringify([path, accel]);
  const circumstances = await circumstancesOf(path);
  const known = asked.get(key);
  if (known?.circumstances === circumstances) return known.answers;
  const now = { circumstances, answers: ask(path, accel) };
  const forget = (): void => {
    if (asked.get(key) === now) asked.delete(key);
  };
  asked.set(key, now);
  // A person may be about to mend what is refused, by whatever means.
  now.answers.then(({ postCopyRefusal }) => {
    if (postCopyRefusal !== "") forget();
  }, forget);
  return now.answers;
}

/** What may change while this process runs: the executable, its devices, and who may use them. */
async function circumstancesOf(path: string): Promise<string> {
  const [setting, ...files] = await Promise.all([
    readFile(USERFAULTFD_FOR_ALL, "utf8").catch(() => null),
    ...[path, ...DEVICES].map((file) => stat(file).catch(() => null)),
  ]);
  const facts = files.map((file) => {
    if (file === null) return null;
    const { dev, ino, size, mode, uid, gid, mtimeMs, ctimeMs } = file;
    return [dev, ino, size, mode, uid, gid, mtimeMs, ctimeMs];
  });
  return JSON.stringify([setting, facts]);
}

async function ask(path: string, accel: Accelerator): Promise<QemuAnswers> {
  try {
    const replies = repliesIn(await run(path, accel));
    return { cpuModels: readCpuModels(replies), postCopyRefusal: readRefusal(replies) };
  } catch (error) {
    const reason = messageOf(error);
    throw new GuestError(
      `QEMU ${path} could not be asked: ${reason}`,
      { code: "qemu-not-usable", binary: path, reason },
      { cause: error },
    );
  }
}

function repliesIn(output: string): ReadonlyMap<string, QmpFields> {
  const replies = new Map<string, QmpFields>();
  for (const line of output.split("\n").filter((each) => each.startsWith("{"))) {
    const fields = new QmpFields(JSON.parse(line), "an answer");
    const id = fields.stringOrNull("id");
    if (id !== null) replies.set(id, fields);
  }
  return replies;
}

function readCpuModels(
  replies: ReadonlyMap<string, QmpFields>,
): ReadonlyMap<string, readonly string[]> {
  const list = answerOf(replies, "cpus").value("return");
  const entries = readList(list, "query-cpu-definitions", (fields): [string, readonly string[]] => [
    fields.string("name"),
    fields.stringsOrNone("unavailable-features"),
  ]);
  return new Map(entries);
}

function readRefusal(replies: ReadonlyMap<string, QmpFields>): string {
  return answerOf(replies, "post-copy").fieldsOrNull("error")?.string("desc").trim() ?? "";
}

function answerOf(replies: ReadonlyMap<string, QmpFields>, id: string): QmpFields {
  const answer = replies.get(id);
  if (answer === undefined) throw new Error(`it did not answer about ${id}`);
  return answer;
}

function run(path: string, accel: Accelerator): Promise<string> {
  const words = [
    ...["-machine", "none", "-accel", accel, "-display", "none", "-nodefaults", "-S"],
    ...["-incoming", "defer", "-qmp", "stdio"],
  ];
  const options = {
    timeout: RUN_MS_MAX,
    maxBuffer: OUTPUT_BYTES_MAX,
    killSignal: "SIGKILL",
  } as const;
  return new Promise((resolve, reject) => {
    const child = execFile(path, words, options, (error, stdout) => {
      if (error === null) resolve(stdout);
      else reject(new Error(messageOf(error), { cause: error }));
    });
    // It may end before it has read everything; what it wrote by then counts.
    child.stdin?.on("error", () => undefined);
    child.stdin?.end(COMMANDS.map((command) => `${JSON.stringify(command)}\n`).join(""));
  });
}
