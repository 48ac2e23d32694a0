/**
 * A QMP session of one life with one QEMU. What was sent is carried out, also when whoever sent it
 * has died since; replies and events come in order, and late.
 */
import { Deferred } from "@vmferry/core";
import {
  GuestError,
  QmpError,
  type GuestProcess,
  type QmpClient,
  type QmpEvent,
} from "@vmferry/qemu";
import { EventWaiters } from "../../packages/qemu/src/qmp/event-waiters.ts";
import type { Life } from "./life.ts";
import { Refusal, type Machine } from "./machine.ts";
import type { Random } from "./random.ts";
import type { Scheduler } from "./scheduler.ts";

const ANSWER_MS_MAX = 10_000;
/** What is said later is heard later. */
const ORDER_MS = 0.0001;

export interface MonitorPorts {
  readonly life: Life;
  readonly machine: Machine;
  readonly scheduler: Scheduler;
  readonly random: Random;
}

export interface ProcessPorts extends MonitorPorts {
  /** Asked at each SIGKILL: the kernel cannot end it yet. */
  readonly survives: () => boolean;
}

class Monitor {
  readonly version = { major: 7, minor: 2, micro: 22, package: "" };
  readonly closed: Promise<unknown>;
  readonly #closed = new Deferred<unknown>();
  readonly #ports: MonitorPorts;
  readonly #waiters: EventWaiters;
  readonly #listeners = new Set<(event: QmpEvent) => void>();
  readonly #pending = new Set<(error: QmpError) => void>();
  /** What QEMU has been told and not carried out: one after another. */
  readonly #commands: (() => void)[] = [];
  readonly #next = (): void => {
    const { scheduler, random, machine } = this.#ports;
    const waitMs = machine.stalledUntilMs - scheduler.nowMs;
    if (waitMs > 0) {
      scheduler.after(waitMs, this.#next);
      return;
    }
    this.#commands.shift()?.();
    if (this.#commands.length > 0) scheduler.after(random.spread(0.02, 1), this.#next);
  };
  #isOpen = true;
  /** When the last thing that QEMU said arrives. */
  #lastMs = 0;

  constructor(ports: MonitorPorts) {
    const { life, machine } = ports;
    this.#ports = ports;
    this.closed = this.#closed.promise;
    this.#waiters = new EventWaiters(life.clock);
    const deaf = machine.onEvent((name, data) => {
      this.#say(() => {
        this.#publish({ name, data, seconds: 0, microseconds: 0 });
      });
    });
    life.onDeath(deaf);
    machine.onExit(() => {
      this.#say(() => {
        this.#end();
      });
    });
  }

  get isOpen(): boolean {
    return this.#isOpen;
  }

  execute(name: string, values: Readonly<Record<string, unknown>> = {}): Promise<unknown> {
    const { life, machine, scheduler, random } = this.#ports;
    return new Promise((resolve, reject) => {
      if (!life.port(`${machine.side} qmp ${name}`)) return;
      if (!this.#isOpen) {
        reject(closedError(name));
        return;
      }
      const cancelTimer = life.clock.after(ANSWER_MS_MAX, () => {
        this.#pending.delete(failed);
        reject(new QmpError(`${name} was not answered`, timeout(name)));
      });
      const failed = (error: QmpError): void => {
        cancelTimer();
        reject(error);
      };
      this.#pending.add(failed);
      const carryOut = (): void => {
        if (!machine.isAlive) return;
        const answer = answerOf(machine, name, values);
        this.#say(() => {
          if (!this.#pending.delete(failed)) return;
          cancelTimer();
          if (answer instanceof QmpError) reject(answer);
          else resolve(answer);
        });
      };
      this.#commands.push(carryOut);
      if (this.#commands.length === 1) scheduler.after(random.spread(0.02, 1), this.#next);
    });
  }

  onEvent(listener: (event: QmpEvent) => void): () => void {
    const entry = (event: QmpEvent): void => {
      listener(event);
    };
    this.#listeners.add(entry);
    return () => {
      this.#listeners.delete(entry);
    };
  }

  waitFor: QmpClient["waitFor"] = (predicate, options) => {
    const found = this.#waiters.add(predicate, options);
    if (!this.#isOpen) this.#waiters.rejectAll(() => closedError("event"));
    return found;
  };

  close(): Promise<void> {
    this.#end();
    return Promise.resolve();
  }

  #say(hear: () => void): void {
    const { scheduler, random, life } = this.#ports;
    this.#lastMs = Math.max(this.#lastMs + ORDER_MS, scheduler.nowMs + random.spread(0.02, 1));
    life.later(this.#lastMs - scheduler.nowMs, hear);
  }

  #publish(event: QmpEvent): void {
    if (!this.#isOpen) return;
    this.#waiters.publish(event);
    for (const listener of [...this.#listeners]) listener(event);
  }

  #end(): void {
    if (!this.#isOpen) return;
    this.#isOpen = false;
    for (const fail of [...this.#pending]) fail(closedError("command"));
    this.#pending.clear();
    this.#waiters.rejectAll(() => closedError("event"));
    this.#listeners.clear();
    this.#closed.resolve({ kind: "closed-by-qemu" });
  }
}

/** A QEMU that a life has started, or found again. */
export function processOf(ports: ProcessPorts): GuestProcess {
  const { life, machine, random } = ports;
  const qmp = new Monitor(ports);
  const exited = new Deferred<unknown>();
  machine.onExit(() => {
    life.later(random.spread(0.1, 200), () => {
      exited.resolve({ kind: "unobserved" });
    });
  });
  const process = {
    identity: { pid: 1, startTicks: 1, qmpPath: "qmp" },
    pid: 1,
    qmp,
    paths: { directory: "guest", serialLog: "serial.log" },
    exited: exited.promise,
    isRunning: () => machine.isAlive,
    kill: async () => {
      if (!life.port(`${machine.side} kill`)) return exited.promise;
      if (machine.isAlive && ports.survives()) {
        await life.sleep(ANSWER_MS_MAX);
        const detail = { code: "qemu-did-not-exit", pid: 1, timeoutMs: ANSWER_MS_MAX } as const;
        throw new GuestError("QEMU did not end", detail);
      }
      machine.kill("killed by its agent");
      return exited.promise;
    },
    quit: () => {
      qmp.execute("quit").catch(() => undefined);
      // One that does not answer is killed.
      life.clock.after(ANSWER_MS_MAX, () => {
        if (life.port(`${machine.side} kill`)) machine.kill("it did not quit");
      });
      return exited.promise;
    },
    detach: () => qmp.close(),
  };
  return process as unknown as GuestProcess;
}

function answerOf(
  machine: Machine,
  name: string,
  values: Readonly<Record<string, unknown>>,
): unknown {
  try {
    return machine.command(name, values);
  } catch (error) {
    if (!(error instanceof Refusal)) throw error;
    const description = error.message;
    const detail = { code: "qmp-command-failed", command: name } as const;
    return new QmpError(description, { ...detail, errorClass: "GenericError", description });
  }
}

function closedError(waitingFor: string): QmpError {
  return new QmpError(`the QMP session is closed (${waitingFor})`, {
    code: "qmp-closed",
    waitingFor,
  });
}

function timeout(waitingFor: string): ConstructorParameters<typeof QmpError>[1] {
  return { code: "qmp-timeout", waitingFor, timeoutMs: ANSWER_MS_MAX };
}
