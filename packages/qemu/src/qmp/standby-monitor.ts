/**
 * A second way to QEMU, over two FIFOs, for commands out of band alone. QEMU has to agree on those
 * in its main loop, which may by then wait for a page that nobody brings; so it agrees when it is
 * started, and the session stays: QEMU holds both ends of its FIFOs, and nobody's death closes them.
 * Whoever opens them next goes on with the session.
 *
 * What QEMU says there besides (its greeting, events, answers that an earlier agent was owed) is
 * read and passed over; it must be read, or QEMU would keep it.
 */
import { execFile } from "node:child_process";
import { randomBytes } from "node:crypto";
import { constants, openSync } from "node:fs";
import { open, rm, type FileHandle } from "node:fs/promises";
import { Socket } from "node:net";
import { promisify } from "node:util";
import { messageOf, systemClock, type Clock } from "@vmferry/core";
import { PendingCommands } from "./pending-commands.ts";
import { checkQmpCommand, type QmpArguments, type QmpOobCommand } from "./qmp-commands.ts";
import { QmpError } from "./qmp-error.ts";
import { QMP_LINE_BYTES_MAX } from "./qmp-line-reader.ts";
import { readQmpMessage } from "./qmp-message.ts";

const COMMAND_TIMEOUT_MS = 10_000;
const LINE_FEED = 0x0a;

export interface StandbyMonitorOptions {
  /** Of the FIFOs, without `.in` and `.out`. */
  readonly path: string;
  readonly clock?: Clock;
}

/** What takes commands whatever QEMU's main loop is doing. */
export interface OobSession {
  executeOob<Command extends QmpOobCommand>(
    command: Command,
    commandArguments: QmpArguments<Command>,
  ): Promise<unknown>;
}

export class StandbyMonitor implements OobSession {
  readonly #input: FileHandle;
  readonly #output: Socket;
  readonly #pending: PendingCommands;
  #line = Buffer.alloc(0);
  #isClosed = false;

  private constructor(input: FileHandle, output: Socket, clock: Clock) {
    this.#input = input;
    this.#output = output;
    this.#pending = new PendingCommands(randomBytes(8).toString("hex"), clock);
    output.on("data", (chunk: Buffer) => {
      this.#receive(chunk);
    });
    output.on("error", () => undefined); // `close` follows
    output.on("close", () => void this.close());
  }

  /** Makes the FIFOs for a QEMU that is about to start. */
  static async make(path: string): Promise<void> {
    const fifos = fifosOf(path);
    for (const fifo of fifos) await rm(fifo, { force: true });
    await promisify(execFile)("mkfifo", ["-m", "600", ...fifos]);
  }

  /** The first agent of a QEMU makes it agree; rejects where it does not. */
  static async begin(options: StandbyMonitorOptions): Promise<StandbyMonitor> {
    const monitor = await StandbyMonitor.goOn(options);
    try {
      const enable = { enable: ["oob"] as const };
      await monitor.#send("execute", "qmp_capabilities", enable);
      return monitor;
    } catch (error) {
      await monitor.close();
      throw error;
    }
  }

  /** Goes on with what an earlier agent has begun. Rejects where no QEMU has the FIFOs open. */
  static async goOn({ path, clock = systemClock }: StandbyMonitorOptions): Promise<StandbyMonitor> {
    const [inputPath, outputPath] = fifosOf(path);
    const { O_NONBLOCK, O_RDONLY, O_WRONLY } = constants;
    try {
      // Nobody at the other end: this is refused, where reading would wait.
      const input = await open(inputPath, O_WRONLY | O_NONBLOCK);
      try {
        // A bare descriptor: the socket alone closes it.
        const fd = openSync(outputPath, O_RDONLY | O_NONBLOCK);
        return new StandbyMonitor(input, new Socket({ fd, writable: false }), clock);
      } catch (error) {
        await input.close();
        throw error;
      }
    } catch (error) {
      const { code = "unknown" } = error as NodeJS.ErrnoException;
      const text = `no QEMU listens at ${inputPath}: ${messageOf(error)}`;
      throw new QmpError(text, { code: "qmp-connect-failed", path: inputPath, systemCode: code });
    }
  }

  async executeOob<Command extends QmpOobCommand>(
    command: Command,
    commandArguments: QmpArguments<Command>,
  ): Promise<void> {
    await this.#send("exec-oob", command, commandArguments);
  }

  /** QEMU and its side of the session stay. */
  async close(): Promise<void> {
    if (this.#isClosed) return;
    this.#isClosed = true;
    this.#output.destroy();
    this.#pending.rejectAll(closed);
    await this.#input.close();
  }

  async #send(how: string, command: string, commandArguments: unknown): Promise<unknown> {
    checkQmpCommand(command, commandArguments);
    if (this.#isClosed) throw closed(command);
    const { id, reply } = this.#pending.add(command, COMMAND_TIMEOUT_MS);
    const line = JSON.stringify({ [how]: command, arguments: commandArguments, id });
    // Short enough to be written as a whole or not at all, whatever becomes of this agent.
    await this.#input.write(`${line}\n`);
    return reply;
  }

  #receive(chunk: Buffer): void {
    let start = 0;
    for (let end = chunk.indexOf(LINE_FEED); end !== -1; end = chunk.indexOf(LINE_FEED, start)) {
      this.#take(Buffer.concat([this.#line, chunk.subarray(start, end)]));
      this.#line = Buffer.alloc(0);
      start = end + 1;
    }
    const rest = chunk.subarray(start);
    const bytes = this.#line.length + rest.length;
    // Nothing that is waited for is that long.
    this.#line = bytes > QMP_LINE_BYTES_MAX ? Buffer.alloc(0) : Buffer.concat([this.#line, rest]);
  }

  /** An earlier agent may have read the beginning of the first line. */
  #take(line: Buffer): void {
    try {
      const message = readQmpMessage(JSON.parse(line.toString()) as Record<string, unknown>);
      if (message.kind === "reply") this.#pending.settle(message.id, message.reply);
    } catch {
      // Half a line, or nothing that anybody here has asked for.
    }
  }
}

function fifosOf(path: string): [input: string, output: string] {
  return [`${path}.in`, `${path}.out`];
}

function closed(waitingFor: string): QmpError {
  return new QmpError(`QEMU's standby monitor is closed (${waitingFor})`, {
    code: "qmp-closed",
    waitingFor,
  });
}
