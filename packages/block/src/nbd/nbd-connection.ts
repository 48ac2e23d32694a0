/**
 * One client's connection: first `negotiate`, then, when the server has made room, `transmit`.
 *
 * `transmit` reads requests one after another and starts each on the device without waiting for
 * the one before; replies go out as they complete. It reads on only while the budget has room, and
 * a request counts until its reply is with the kernel: a client that floods, or that takes no
 * replies, fills its budget and then the socket, not this process.
 *
 * `transmit` settles when the connection is over and the device has settled every request of it,
 * so that no write of this client can land afterwards.
 */
import type { Socket } from "node:net";
import { Deferred, type Clock } from "@vmferry/core";
import type { BlockDevice } from "../block-device.ts";
import { BlockError } from "../block-error.ts";
import { carryOut, encodeRefusal } from "./device-request.ts";
import {
  HANDSHAKE_BEGIN,
  handshakeBytesExpected,
  nextHandshake,
  type Agreed,
  type HandshakeState,
  type ServedExport,
} from "./handshake.ts";
import { InFlightBudget } from "./in-flight-budget.ts";
import { REQUEST_HEADER_BYTES } from "./nbd-constants.ts";
import { nbdErrnoOf, type NbdErrno } from "./nbd-errno.ts";
import { NbdError, violation } from "./nbd-error.ts";
import { BYTES_IN_FLIGHT_MAX, HANDSHAKE_MS_MAX, REQUESTS_IN_FLIGHT_MAX } from "./nbd-limits.ts";
import { encodeGreeting } from "./option-codec.ts";
import { checkRequest, type DeviceCommand, type RequestRules } from "./request-check.ts";
import { decodeRequest } from "./request-codec.ts";
import { SocketReader } from "./socket-reader.ts";

/** What a client that has completed its handshake waits for. */
export interface Admission {
  readonly agreed: Agreed;
  /** Begins the transmission. */
  readonly reply: Buffer;
}

export interface NbdConnectionOptions {
  readonly served: ServedExport;
  readonly device: BlockDevice;
  readonly clock: Clock;
  /** A device failed with something else than a BlockError; the client was told EIO. */
  readonly onFault: (error: unknown) => void;
}

export class NbdConnection {
  /** Resolves when the socket is closed. */
  readonly closed: Promise<void>;
  readonly #socket: Socket;
  readonly #served: ServedExport;
  readonly #device: BlockDevice;
  readonly #clock: Clock;
  readonly #onFault: (error: unknown) => void;
  readonly #reader: SocketReader;
  readonly #budget = new InFlightBudget({
    requestsMax: REQUESTS_IN_FLIGHT_MAX,
    bytesMax: BYTES_IN_FLIGHT_MAX,
  });

  /** `socket` has to stay writable when the client has closed its side (`allowHalfOpen`). */
  constructor(socket: Socket, options: NbdConnectionOptions) {
    this.#socket = socket;
    this.#served = options.served;
    this.#device = options.device;
    this.#clock = options.clock;
    this.#onFault = options.onFault;
    this.#reader = new SocketReader(socket);
    this.closed = new Promise((resolve) => {
      socket.once("close", () => {
        resolve();
      });
    });
    // Says nothing that the close after it does not.
    socket.on("error", () => undefined);
  }

  get ended(): boolean {
    return this.#socket.destroyed;
  }

  /** At once; what the client has not read yet is lost. */
  end(): void {
    this.#socket.destroy();
  }

  /** Null when the client left, or was told good-bye. Rejects with NbdError when it is dropped. */
  async negotiate(): Promise<Admission | null> {
    const timeout = new Deferred<never>();
    const cancelTimer = this.#clock.after(HANDSHAKE_MS_MAX, () => {
      timeout.reject(handshakeTimeout());
      this.end();
    });
    try {
      return await Promise.race([this.#haggle(), timeout.promise]);
    } finally {
      cancelTimer();
    }
  }

  /** Rejects with NbdError when the client is dropped, but not before everything has settled. */
  async transmit({ agreed, reply }: Admission): Promise<void> {
    try {
      await this.#send([reply]);
      await this.#takeRequests(agreed);
    } catch (error) {
      this.end();
      throw error;
    } finally {
      await this.#budget.idle();
      this.end();
    }
  }

  async #haggle(): Promise<Admission | null> {
    await this.#send([encodeGreeting()]);
    let state: HandshakeState = HANDSHAKE_BEGIN;
    for (;;) {
      const bytes = await this.#reader.take(handshakeBytesExpected(state));
      if (bytes === null) return null;
      const step = nextHandshake(state, bytes, this.#served);
      state = step.state;
      if (state.phase === "entering") return { agreed: state.agreed, reply: step.reply };
      // The next option is read when the reply is gone: replies never pile up.
      if (step.reply.length > 0) await this.#send([step.reply]);
      if (state.phase === "aborted") return null;
    }
  }

  /** Until the client leaves, says good-bye, or breaks the protocol. */
  async #takeRequests(agreed: Agreed): Promise<void> {
    const { sizeBytes, readOnly } = this.#served;
    const { structuredReplies, blockStatus } = agreed;
    const rules: RequestRules = { sizeBytes, readOnly, structuredReplies, blockStatus };
    for (;;) {
      const header = await this.#reader.take(REQUEST_HEADER_BYTES);
      if (header === null) return;
      const request = decodeRequest(header);
      const verdict = checkRequest(request, rules);
      if (verdict.kind === "disconnect") return;
      if (verdict.kind === "drop") throw violation(verdict.rule);
      const { cookie } = request;
      if (verdict.kind === "refuse") {
        if (!(await this.#reader.skip(verdict.payloadBytes))) return;
        await this.#budget.take(0);
        this.#answer([encodeRefusal({ cookie, structuredReplies }, verdict.errno)], 0);
        continue;
      }
      const { command, weightBytes } = verdict;
      await this.#budget.take(weightBytes);
      const payload = await this.#payloadOf(command);
      // A connection that was ended from here does not begin anything new.
      if (payload === null || this.ended) {
        this.#budget.release(weightBytes);
        return;
      }
      void this.#run({ cookie, structuredReplies, command, payload }, weightBytes);
    }
  }

  async #payloadOf(command: DeviceCommand): Promise<Buffer | null> {
    if (command.kind !== "write") return NO_PAYLOAD;
    return await this.#reader.takeToKeep(command.length);
  }

  /** Never rejects. */
  async #run(request: Parameters<typeof carryOut>[0], weightBytes: number): Promise<void> {
    let reply: Buffer[];
    try {
      reply = await carryOut(request, this.#device);
    } catch (error) {
      reply = [encodeRefusal(request, this.#errnoOf(error))];
    }
    this.#answer(reply, weightBytes);
  }

  #errnoOf(error: unknown): NbdErrno {
    if (!(error instanceof BlockError)) this.#onFault(error);
    return nbdErrnoOf(error);
  }

  #answer(reply: readonly Buffer[], weightBytes: number): void {
    void this.#send(reply).then(() => {
      this.#budget.release(weightBytes);
    });
  }

  /** Resolves when the kernel has the bytes, or the socket is closed; never rejects. */
  #send(parts: readonly Buffer[]): Promise<void> {
    return new Promise((resolve) => {
      this.#socket.cork();
      for (const [index, part] of parts.entries()) {
        if (index < parts.length - 1) this.#socket.write(part);
        else
          this.#socket.write(part, () => {
            resolve();
          });
      }
      this.#socket.uncork();
    });
  }
}

const NO_PAYLOAD = Buffer.alloc(0);

function handshakeTimeout(): NbdError {
  return new NbdError(`the NBD handshake took longer than ${HANDSHAKE_MS_MAX} ms`, {
    code: "nbd-handshake-timeout",
    timeoutMs: HANDSHAKE_MS_MAX,
  });
}
