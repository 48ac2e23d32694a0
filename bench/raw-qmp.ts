// QMP without the limits that the agents put on themselves: theirs migrates to unix sockets only,
// whereas QEMU's own migration is measured over TCP.

import { createConnection, type Socket } from "node:net";
import { createInterface } from "node:readline";
import { AgentError, Deferred } from "@vmferry/core";

export interface RawQmpEvent {
  readonly event: string;
  readonly data?: Readonly<Record<string, unknown>>;
}

export class RawQmpError extends AgentError<{ readonly code: "qmp-refused" | "qmp-closed" }> {}

interface Waiter {
  readonly predicate: (event: RawQmpEvent) => boolean;
  readonly seen: Deferred<RawQmpEvent>;
}

type Message =
  | RawQmpEvent
  | { readonly QMP: unknown }
  | { readonly return: unknown }
  | { readonly error: { readonly desc: string } };

export class RawQmp {
  readonly #socket: Socket;
  readonly #greeted = new Deferred();
  /** Replies come in the order of their commands. */
  readonly #pending: Deferred<unknown>[] = [];
  #waiters: Waiter[] = [];
  #closed = false;

  private constructor(path: string) {
    this.#socket = createConnection({ path });
    this.#socket.on("error", () => undefined); // `close` follows
    this.#socket.once("close", () => {
      this.#end();
    });
    const lines = createInterface({ input: this.#socket });
    lines.on("line", (line) => {
      this.#take(JSON.parse(line) as Message);
    });
    lines.on("error", () => undefined); // of the socket; `close` follows
  }

  static async connect(path: string): Promise<RawQmp> {
    const qmp = new RawQmp(path);
    await qmp.#greeted.promise;
    await qmp.execute("qmp_capabilities");
    return qmp;
  }

  execute(command: string, commandArguments: object = {}): Promise<unknown> {
    const reply = new Deferred<unknown>();
    if (this.#closed) reply.reject(closed());
    else {
      this.#pending.push(reply);
      this.#socket.write(JSON.stringify({ execute: command, arguments: commandArguments }) + "\n");
    }
    return reply.promise;
  }

  /** The first event from now on of which the predicate holds; rejects when QEMU goes. */
  waitFor(predicate: (event: RawQmpEvent) => boolean): Promise<RawQmpEvent> {
    const seen = new Deferred<RawQmpEvent>();
    if (this.#closed) seen.reject(closed());
    else this.#waiters.push({ predicate, seen });
    return seen.promise;
  }

  close(): void {
    this.#socket.destroy();
  }

  #take(message: Message): void {
    if ("QMP" in message) {
      this.#greeted.resolve();
    } else if ("event" in message) {
      for (const { predicate, seen } of this.#waiters) {
        if (predicate(message)) seen.resolve(message);
      }
      this.#waiters = this.#waiters.filter(({ seen }) => !seen.settled);
    } else if ("error" in message) {
      const refusal = new RawQmpError(`QEMU: ${message.error.desc}`, { code: "qmp-refused" });
      this.#pending.shift()?.reject(refusal);
    } else {
      this.#pending.shift()?.resolve(message.return);
    }
  }

  #end(): void {
    this.#closed = true;
    this.#greeted.reject(closed());
    for (const reply of this.#pending.splice(0)) reply.reject(closed());
    for (const { seen } of this.#waiters.splice(0)) seen.reject(closed());
  }
}

function closed(): RawQmpError {
  return new RawQmpError("QEMU has closed its QMP connection", { code: "qmp-closed" });
}
