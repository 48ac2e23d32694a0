// Which reply belongs to which command. An id is `vmferry-<session>-<number>`:
//
//   known, waited for       -> the command's own reply
//   known, given up         -> a late reply; dropped
//   of an earlier session   -> dropped: QEMU carries out what it had read before the connection
//                              broke, and sends the reply to whoever is connected by then
//   anything else           -> QEMU does not keep to the protocol
//
// A command that was given up still counts as pending until QEMU answers it, so that the limit
// bounds the memory held for a QEMU that has stopped answering.

import { Deferred, type Clock } from "@vmferry/core";
import { QmpError } from "./qmp-error.ts";

const QMP_PENDING_COMMANDS_MAX = 64;

const ID_PATTERN = /^vmferry-([0-9a-f]{16})-(\d{1,15})$/;

interface WaitingCommand {
  readonly command: string;
  readonly reply: Deferred<unknown>;
  readonly cancelTimer: () => void;
}

/** `fate`: what became of a reply. */
export type ReplyFate = "delivered" | "late" | "earlier-session" | "unknown";

export type CommandReply =
  | { readonly kind: "return"; readonly value: unknown }
  | { readonly kind: "error"; readonly errorClass: string; readonly description: string };

export class PendingCommands {
  readonly #clock: Clock;
  readonly #session: string;
  readonly #waiting = new Map<string, WaitingCommand>();
  readonly #givenUp = new Set<string>();
  #lastNumber = 0;

  /** `session`: 16 hexadecimal digits that no earlier session with this QEMU had. */
  constructor(session: string, clock: Clock) {
    this.#session = session;
    this.#clock = clock;
  }

  get size(): number {
    return this.#waiting.size + this.#givenUp.size;
  }

  /** Throws `qmp-too-many-pending`. */
  add(
    command: string,
    timeoutMs: number,
  ): { readonly id: string; readonly reply: Promise<unknown> } {
    if (this.size >= QMP_PENDING_COMMANDS_MAX) {
      throw new QmpError(`QEMU owes the replies to ${QMP_PENDING_COMMANDS_MAX} QMP commands`, {
        code: "qmp-too-many-pending",
        pendingMax: QMP_PENDING_COMMANDS_MAX,
      });
    }
    this.#lastNumber += 1;
    const id = `vmferry-${this.#session}-${this.#lastNumber}`;
    const reply = new Deferred<unknown>();
    const cancelTimer = this.#clock.after(timeoutMs, () => {
      this.#waiting.delete(id);
      this.#givenUp.add(id);
      reply.reject(
        new QmpError(`QEMU did not answer ${command} within ${timeoutMs} ms`, {
          code: "qmp-timeout",
          waitingFor: command,
          timeoutMs,
        }),
      );
    });
    this.#waiting.set(id, { command, reply, cancelTimer });
    return { id, reply: reply.promise };
  }

  settle(id: unknown, reply: CommandReply): ReplyFate {
    if (typeof id !== "string") return "unknown";
    const waiting = this.#waiting.get(id);
    if (waiting !== undefined) {
      this.#waiting.delete(id);
      waiting.cancelTimer();
      if (reply.kind === "return") waiting.reply.resolve(reply.value);
      else waiting.reply.reject(commandFailed(waiting.command, reply));
      return "delivered";
    }
    if (this.#givenUp.delete(id)) return "late";
    const match = ID_PATTERN.exec(id);
    return match !== null && match[1] !== this.#session ? "earlier-session" : "unknown";
  }

  rejectAll(reasonFor: (command: string) => Error): void {
    for (const { command, reply, cancelTimer } of this.#waiting.values()) {
      cancelTimer();
      reply.reject(reasonFor(command));
    }
    this.#waiting.clear();
    this.#givenUp.clear();
  }
}

function commandFailed(
  command: string,
  { errorClass, description }: CommandReply & { readonly kind: "error" },
): QmpError {
  return new QmpError(`QEMU refused ${command}: ${description}`, {
    code: "qmp-command-failed",
    command,
    errorClass,
    description,
  });
}
