/** For tests: a dest that answers what a test tells it to, and links that are opened to it. */
import { createLogger, ManualClock } from "@vmferry/agent";
import {
  limits,
  ourHello,
  type ControlKind,
  type ControlMessage,
  type ControlMessageOf,
} from "@vmferry/protocol";
import { PeerDialer } from "../adapters/peer-dialer.ts";
import { ScriptedDest, type ScriptedConnection } from "../adapters/scripted-dest.ts";
import { PeerLink } from "./peer-link.ts";

export const offer: ControlMessageOf<"offer"> = {
  kind: "offer",
  migrationId: "m1",
  epoch: 3,
  guest: {
    name: "web1",
    machine: "pc-q35-7.2",
    accel: "auto",
    cpu: "qemu64",
    vcpus: 1,
    memoryBytes: 2 ** 29,
    boot: { kernel: "vmlinuz", initrd: "initrd.img", cmdline: "console=ttyS0" },
    disks: [],
    serial: "file",
  },
  accel: "tcg",
  uuid: "6ba7b810-9dad-41d1-80b4-00c04fd430c8",
  qemuVersion: "10.0.2",
  bulkConnections: 3,
  disks: [],
  hashSeed: "00112233445566ff",
  incarnation: "s1",
  postCopy: false,
  witness: null,
};
export const traceParent = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
export const session = "5e".repeat(32);
export const accept: ControlMessageOf<"accept"> = {
  kind: "accept",
  migrationId: "m1",
  epoch: 3,
  session,
  creditBytes: limits.CREDIT_BYTES_MAX,
  qemuVersion: "10.0.2",
  postCopyRefusal: "",
  witness: false,
};
export const hello = ourHello({ software: "vmferry test", incarnation: "d1" });
export const running: ControlMessageOf<"running"> = {
  kind: "running",
  migrationId: "m1",
  epoch: 3,
  generation: 1,
  incarnation: "d1",
};

export const about = { migrationId: "m1", epoch: 3, generation: 1, incarnation: "s1" };

export const answer =
  (message: ControlMessage) =>
  (connection: ScriptedConnection): void => {
    connection.send(message);
  };

export class PeerLinkBench {
  readonly dest: ScriptedDest;
  readonly clock = new ManualClock();
  readonly abort = new AbortController();
  /** Kinds of all control messages that the dest has heard. */
  readonly seen: string[] = [];
  /** The last offer that it has heard. */
  offered: ControlMessageOf<"offer"> | null = null;
  /** What the dest does with a message of a control connection, by its kind. */
  script: Partial<Record<ControlKind, (connection: ScriptedConnection) => void>> = {
    hello: answer(hello),
    offer: answer(accept),
    resume: answer({ kind: "received", received: 0 }),
  };
  onControl: (message: ControlMessage) => void = () => undefined;
  onBulk: (connection: ScriptedConnection) => void = answer({ kind: "received", received: 0 });

  private constructor(dest: ScriptedDest) {
    this.dest = dest;
  }

  static async open(): Promise<PeerLinkBench> {
    const dest = await ScriptedDest.open((connection) => {
      if (connection.path === "/v1/peer/bulk") bench.onBulk(connection);
      else void bench.#follow(connection);
    });
    const bench = new PeerLinkBench(dest);
    return bench;
  }

  open(
    url = this.dest.url,
    dialer = new PeerDialer({ url, token: null, tls: null }, this.clock),
    offered = offer,
  ): Promise<PeerLink> {
    const silent = { write: (): void => undefined };
    return PeerLink.open({
      dialer,
      identity: { software: "vmferry test", incarnation: "s1" },
      offer: offered,
      traceParent,
      logger: createLogger({ role: "source", level: "info", stream: silent }),
      clock: this.clock,
      random: () => 0.5,
      signal: this.abort.signal,
    });
  }

  /** The last one. */
  control(): ScriptedConnection {
    return this.dest.connections.findLast(({ path }) => path === "/v1/peer/control")!;
  }

  bulks(): ScriptedConnection[] {
    return this.dest.connections.filter(({ path }) => path === "/v1/peer/bulk");
  }

  /** Connections that are not closed, after the close of one was given up that nobody answers. */
  openCount(): number {
    this.clock.advance(1001);
    return this.dest.connections.filter(({ closeCode }) => closeCode === null).length;
  }

  /** Lets time pass until it is so. */
  async inTime(condition: () => boolean, stepMs = 200): Promise<void> {
    for (let rounds = 0; !condition(); rounds++) {
      if (rounds > 400) throw new Error("it does not come to that");
      this.clock.advance(stepMs);
      await new Promise((resolve) => setTimeout(resolve, 2));
    }
  }

  async #follow(connection: ScriptedConnection): Promise<void> {
    for (;;) {
      const message = await connection.next();
      this.seen.push(message.kind);
      if (message.kind === "offer") this.offered = message;
      this.onControl(message);
      this.script[message.kind]?.(connection);
    }
  }
}

/** What the link gives for its end. */
export function lossOf(link: PeerLink): Promise<Error> {
  return new Promise((resolve) => {
    link.onLost(resolve);
  });
}
