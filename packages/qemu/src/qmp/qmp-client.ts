// One QMP session with one QEMU over a unix socket.
//
//   connect -> greeting -> qmp_capabilities -> ready -> closed
//
// Replies are routed by id, events go to the listeners; neither waits for the other. The session
// ends, and takes every pending command with it, as soon as QEMU does something that QMP does not
// allow: after that nothing it says can be relied on. A command that QEMU refuses, or does not
// answer in time, ends nothing but itself.
//
// QEMU serves one connection at a time: a second one gets no greeting until the first has closed.

import { randomBytes } from "node:crypto";
import { createConnection, type Socket } from "node:net";
import { assert, Deferred, failpoint, systemClock, type Clock } from "@vmferry/core";
import { EventWaiters, type QmpWaitOptions } from "./event-waiters.ts";
import { PendingCommands } from "./pending-commands.ts";
import type { QemuVersion } from "./qemu-version.ts";
import {
  checkQmpCommand,
  readQmpResult,
  type QmpArguments,
  type QmpCommand,
  type QmpResult,
} from "./qmp-commands.ts";
import { QmpError } from "./qmp-error.ts";
import type { QmpEvent } from "./qmp-event.ts";
import { QmpLineReader, type UncheckedObject } from "./qmp-line-reader.ts";
import { readQmpMessage } from "./qmp-message.ts";
import { UNIX_SOCKET_PATH_BYTES_MAX, unixSocketPathBytes } from "./unix-socket-path.ts";

const QMP_COMMAND_TIMEOUT_MS = 10_000;

export interface QmpConnectOptions {
  readonly path: string;
  /** For the connection, the greeting and the negotiation together. */
  readonly timeoutMs: number;
  /** For each command that does not say otherwise. */
  readonly commandTimeoutMs?: number;
  readonly signal?: AbortSignal;
  readonly clock?: Clock;
}

export interface QmpExecuteOptions {
  readonly timeoutMs?: number;
}

/** Why a session is over. */
export type QmpCloseReason =
  | { readonly kind: "closed-here" }
  | { readonly kind: "closed-by-qemu" }
  | { readonly kind: "failed"; readonly error: Error };

/** The arguments may be left out only where a command takes none. */
export type QmpExecuteParameters<Command extends QmpCommand> =
  QmpArguments<Command> extends undefined
    ? [commandArguments?: undefined, options?: QmpExecuteOptions]
    : [commandArguments: QmpArguments<Command>, options?: QmpExecuteOptions];

export class QmpClient {
  readonly path: string;
  /** Never rejects. */
  readonly closed: Promise<QmpCloseReason>;
  readonly #closed = new Deferred<QmpCloseReason>();
  readonly #socket: Socket;
  readonly #commandTimeoutMs: number;
  readonly #reader = new QmpLineReader();
  readonly #pending: PendingCommands;
  readonly #waiters: EventWaiters;
  readonly #listeners = new Set<(event: QmpEvent) => void>();
  readonly #greeting = new Deferred<QemuVersion>();
  #version: QemuVersion | null = null;
  #closeReason: QmpCloseReason | null = null;

  private constructor(socket: Socket, options: QmpConnectOptions) {
    const clock = options.clock ?? systemClock;
    this.path = options.path;
    this.closed = this.#closed.promise;
    this.#socket = socket;
    this.#commandTimeoutMs = options.commandTimeoutMs ?? QMP_COMMAND_TIMEOUT_MS;
    this.#pending = new PendingCommands(randomBytes(8).toString("hex"), clock);
    this.#waiters = new EventWaiters(clock);
    socket.on("data", (chunk) => {
      this.#receive(chunk);
    });
    socket.on("error", (error: NodeJS.ErrnoException) => {
      this.#end(this.#version === null ? connectFailed(this.path, error) : closedByQemu());
    });
    socket.on("close", () => {
      this.#end(closedByQemu());
    });
  }

  /**
   * Rejects with `qmp-connect-failed`, `qmp-timeout`, `qmp-closed`, what broke the protocol, or the
   * reason of `signal`.
   */
  static async connect(options: QmpConnectOptions): Promise<QmpClient> {
    const { path, timeoutMs, signal, clock = systemClock } = options;
    signal?.throwIfAborted();
    const bytes = unixSocketPathBytes(path);
    if (bytes > UNIX_SOCKET_PATH_BYTES_MAX) {
      throw connectFailed(path, { code: "ENAMETOOLONG", message: `${bytes} bytes` }).error;
    }
    const client = new QmpClient(createConnection({ path }), options);
    const cancelTimer = clock.after(timeoutMs, () => {
      client.#end(failed(greetingTimeout(path, timeoutMs)));
    });
    const abort = (): void => {
      client.#end({ kind: "failed", error: signal?.reason as Error });
    };
    signal?.addEventListener("abort", abort, { once: true });
    try {
      client.#version = await client.#greeting.promise;
      await client.execute("qmp_capabilities", {}, { timeoutMs });
      return client;
    } catch (error) {
      client.#end(failed(error as Error));
      throw error;
    } finally {
      cancelTimer();
      signal?.removeEventListener("abort", abort);
    }
  }

  /** As QEMU said in its greeting. */
  get version(): QemuVersion {
    assert(this.#version !== null, "a client is handed out after the greeting");
    return this.#version;
  }

  get isOpen(): boolean {
    return this.#closeReason === null;
  }

  /**
   * Sends one command of the allow-list and resolves with its reply, checked. Rejects with
   * `qmp-command-failed`, `qmp-timeout`, `qmp-closed`, `qmp-unexpected-shape`,
   * `qmp-too-many-pending`, `qmp-command-not-allowed` or `qmp-arguments-not-allowed`.
   */
  async execute<Command extends QmpCommand>(
    command: Command,
    ...[commandArguments, options]: QmpExecuteParameters<Command>
  ): Promise<QmpResult<Command>> {
    checkQmpCommand(command, commandArguments);
    if (this.#closeReason !== null) throw closedError(command, this.#closeReason);
    failpoint(`qmp.${command}.before`);
    const { id, reply } = this.#pending.add(command, options?.timeoutMs ?? this.#commandTimeoutMs);
    this.#socket.write(
      `${JSON.stringify({ execute: command, arguments: commandArguments, id })}\n`,
    );
    const result = readQmpResult(command, await reply);
    failpoint(`qmp.${command}.after`);
    return result;
  }

  /**
   * Calls `listener` for each event, in order, until the returned function is called. A listener
   * that throws ends the session.
   */
  onEvent(listener: (event: QmpEvent) => void): () => void {
    // A function of its own, so that the same listener can be added twice and taken away once.
    const entry = (event: QmpEvent): void => {
      listener(event);
    };
    this.#listeners.add(entry);
    return () => {
      this.#listeners.delete(entry);
    };
  }

  /**
   * Resolves with the first event from now on for which `predicate` holds. It listens before it
   * returns: call it, then send the command or the query, then await both, and no event between
   * them is missed. Rejects with `qmp-timeout`, `qmp-closed` or the reason of `signal`; a
   * rejection that nobody awaits is harmless.
   */
  waitFor(predicate: (event: QmpEvent) => boolean, options: QmpWaitOptions): Promise<QmpEvent> {
    const found = this.#waiters.add(predicate, options);
    const reason = this.#closeReason;
    if (reason !== null) this.#waiters.rejectAll(() => closedError("event", reason));
    return found;
  }

  /** Closes the connection; QEMU and its guest go on. Resolves when the socket is closed. */
  async close(): Promise<void> {
    this.#end({ kind: "closed-here" });
    if (this.#socket.closed) return;
    await new Promise<void>((resolve) => {
      this.#socket.once("close", () => {
        resolve();
      });
    });
  }

  #receive(chunk: Buffer): void {
    try {
      this.#reader.push(chunk, (message) => {
        // A message may come in the same chunk as the one that ended the session.
        if (this.#closeReason === null) this.#dispatch(message);
      });
    } catch (error) {
      this.#end(failed(error as Error));
    }
  }

  #dispatch(unchecked: UncheckedObject): void {
    const message = readQmpMessage(unchecked);
    if (message.kind === "greeting") {
      if (this.#greeting.settled) throw protocolError("a second greeting");
      this.#greeting.resolve(message.version);
      return;
    }
    if (!this.#greeting.settled) throw protocolError(`${message.kind} before the greeting`);
    if (message.kind === "event") {
      this.#publish(message.event);
      return;
    }
    const fate = this.#pending.settle(message.id, message.reply);
    if (fate === "unknown") {
      throw protocolError(
        message.reply.kind === "error" && message.id === undefined
          ? `an error without id: ${message.reply.description}`
          : "a reply to a command that was not sent",
      );
    }
  }

  #publish(event: QmpEvent): void {
    this.#waiters.publish(event);
    for (const listener of this.#listeners) {
      try {
        listener(event);
      } catch (cause) {
        throw new QmpError(
          `a listener failed on the QMP event ${event.name}`,
          { code: "qmp-listener-failed" },
          { cause },
        );
      }
    }
  }

  #end(reason: QmpCloseReason): void {
    if (this.#closeReason !== null) return;
    this.#closeReason = reason;
    this.#socket.destroy();
    this.#greeting.reject(endedError("greeting", reason));
    this.#pending.rejectAll((command) => endedError(command, reason));
    this.#waiters.rejectAll(() => endedError("event", reason));
    this.#listeners.clear();
    this.#closed.resolve(reason);
  }
}

function closedByQemu(): QmpCloseReason {
  return { kind: "closed-by-qemu" };
}

function failed(error: Error): QmpCloseReason & { readonly kind: "failed" } {
  return { kind: "failed", error };
}

/** For whoever was waiting when the session ended. */
function endedError(waitingFor: string, reason: QmpCloseReason): Error {
  return reason.kind === "failed" ? reason.error : closedError(waitingFor, reason);
}

function closedError(waitingFor: string, reason: QmpCloseReason): QmpError {
  const cause = reason.kind === "failed" ? { cause: reason.error } : undefined;
  return new QmpError(
    `the QMP session is closed (${waitingFor})`,
    { code: "qmp-closed", waitingFor },
    cause,
  );
}

function connectFailed(
  path: string,
  { code = "unknown", message }: { readonly code?: string | undefined; readonly message: string },
): QmpCloseReason & { readonly kind: "failed" } {
  return failed(
    new QmpError(`cannot connect to the QMP socket ${path}: ${message}`, {
      code: "qmp-connect-failed",
      path,
      systemCode: code,
    }),
  );
}

function greetingTimeout(path: string, timeoutMs: number): QmpError {
  return new QmpError(`QEMU did not greet on ${path} within ${timeoutMs} ms`, {
    code: "qmp-timeout",
    waitingFor: "greeting",
    timeoutMs,
  });
}

function protocolError(reason: string): QmpError {
  return new QmpError(`QEMU broke the QMP protocol: ${reason}`, { code: "qmp-protocol", reason });
}
