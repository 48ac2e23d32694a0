// What a dest does with a source that only asks.
import { expect, test } from "vitest";
import {
  COMPLETED_SOMEHOW,
  createLogger,
  endedMigration,
  EventHub,
  ManualClock,
  MigrationStore,
  type Channel,
} from "@vmferry/agent";
import type { ControlMessage, ControlMessageOf, MigrationObject } from "@vmferry/protocol";
import { sampleProbe } from "../preflight/sample-probe.ts";
import { DestSessions } from "./dest-sessions.ts";

type Kind = ControlMessage["kind"];

const RESULT: ControlMessageOf<"probe-result"> = {
  kind: "probe-result",
  ...{ qemuVersion: "10.0.2", postCopyRefusal: "", dateMs: 0, checks: [] },
};

/** A source that has said these. */
class SourceChannel implements Channel {
  readonly sent: ControlMessage[] = [];
  readonly roundTripMs = 1;
  readonly closed: Promise<Error>;
  closeCode: number | null = null;
  readonly #said: ControlMessage[];
  readonly #end: (reason: Error) => void;

  constructor(...said: ControlMessage[]) {
    const { promise, resolve } = Promise.withResolvers<Error>();
    this.closed = promise;
    this.#end = resolve;
    this.#said = said;
  }

  next<K extends Kind>(...kinds: readonly K[]): Promise<ControlMessageOf<K>> {
    const message = this.#said.shift();
    if (message !== undefined && (kinds as readonly Kind[]).includes(message.kind)) {
      return Promise.resolve(message as ControlMessageOf<K>);
    }
    return Promise.reject(new Error(`${message?.kind ?? "nothing"} where ${kinds.join()} was due`));
  }

  send(message: ControlMessage): void {
    this.sent.push(message);
  }

  listen(): void {
    throw new Error("nobody listens to a source that asks");
  }

  close(code: number): void {
    this.closeCode ??= code;
    this.#end(new Error(`closed with ${code}`));
  }

  get kinds(): readonly Kind[] {
    return this.sent.map(({ kind }) => kind);
  }
}

function hello(...features: readonly string[]): ControlMessageOf<"hello"> {
  const versions = { version: 2, versionMin: 2 };
  return { kind: "hello", ...versions, features: [...features], software: "t", incarnation: "s1" };
}

function openSessions(
  clock = new ManualClock(),
  earlier: readonly MigrationObject[] = [],
): { sessions: DestSessions; probed: unknown[] } {
  const probed: unknown[] = [];
  const unused = (): never => {
    throw new Error("nothing is begun for a probe");
  };
  const store = new MigrationStore({ hub: new EventHub({ clock }), clock });
  store.restore(earlier);
  const sessions = new DestSessions({
    store,
    journals: { take: unused },
    logger: createLogger({ role: "dest", level: "silent" }),
    ...{ clock, witness: null, sharedDir: null, software: "test", incarnation: "d1" },
    ...{ guestsDir: "guests", runDir: "run", onPageFault: unused },
    openReception: unused,
    answerProbe: (probe) => {
      probed.push(probe);
      return Promise.resolve(RESULT);
    },
  });
  return { sessions, probed };
}

test("a probe is answered, and the source ends the connection", async () => {
  const { sessions, probed } = openSessions();
  const channel = new SourceChannel(hello("probe"), sampleProbe());
  const admitted = sessions.admitControl(channel);
  while (channel.sent.length < 2) await Promise.resolve();
  expect(channel.kinds).toEqual(["hello", "probe-result"]);
  expect(probed).toEqual([sampleProbe()]);
  expect(channel.closeCode).toBeNull();
  channel.close(4000);
  await admitted;
  expect(sessions.list({ limit: 10 }).migrations).toEqual([]);
});

test("a source that does not end it is cut off", async () => {
  const clock = new ManualClock();
  const channel = new SourceChannel(hello("probe"), sampleProbe());
  const admitted = openSessions(clock).sessions.admitControl(channel);
  while (channel.sent.length < 2) await Promise.resolve();
  clock.advance(10_000);
  await admitted;
  expect(channel.closeCode).toBe(4001);
});

test("a source that has not named the feature must not ask", async () => {
  const { sessions, probed } = openSessions();
  const channel = new SourceChannel(hello("zstd"), sampleProbe());
  await sessions.admitControl(channel);
  expect(channel.kinds).toEqual(["hello", "reject"]);
  expect(probed).toEqual([]);
});

test("an offer of a migration that an earlier life has seen end is refused", async () => {
  const about = { id: "m1", role: "dest", guest: "web1", destination: "here" } as const;
  const outcome = COMPLETED_SOMEHOW;
  const ended = endedMigration({ ...about, endedAt: new Date(0), outcome });
  const { sessions } = openSessions(new ManualClock(), [ended]);
  const { guest } = sampleProbe();
  const channel = new SourceChannel(hello(), {
    ...{ kind: "offer", migrationId: "m1", epoch: 8, guest, accel: "tcg", disks: [] },
    ...{ uuid: "6ba7b810-9dad-41d1-80b4-00c04fd430c8", qemuVersion: "10.0.2", bulkConnections: 1 },
    ...{ hashSeed: "00112233445566ff", incarnation: "s1", postCopy: false, witness: null },
  });
  await sessions.admitControl(channel);
  expect(channel.sent.at(-1)).toMatchObject({ kind: "reject", code: "migration-active" });
  expect(sessions.get("m1")).toEqual(ended);
});
