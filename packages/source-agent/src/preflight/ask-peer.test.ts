// A dest that hangs, where a test decides how time passes.
import { expect, test } from "vitest";
import { createLogger, ManualClock, type Channel } from "@vmferry/agent";
import type { ControlMessage } from "@vmferry/protocol";
import type { ControlMessageOf } from "@vmferry/protocol";
import { askPeer } from "./ask-peer.ts";
import type { PeerAnswer } from "./peer-answer.ts";

type Kind = ControlMessage["kind"];

const logger = createLogger({ role: "source", level: "silent" });
const PROBE: ControlMessageOf<"probe"> = {
  kind: "probe",
  probeId: "p1",
  guest: { name: "web1", machine: "pc-q35-7.2", memoryBytes: 2 ** 29, boot: { kernel: "vmlinuz" } },
  accel: "tcg",
  disks: [],
  witness: null,
};

/** A channel on which the dest says hello and nothing more. */
class HangingChannel implements Channel {
  readonly sent: ControlMessage[] = [];
  readonly features: string[];
  readonly closed = new Promise<Error>(() => undefined);
  readonly roundTripMs = 1;
  closeCode: number | null = null;

  constructor(features: readonly string[] = ["probe"]) {
    this.features = [...features];
  }

  next(...kinds: readonly Kind[]): Promise<never> {
    if (!kinds.includes("hello")) return new Promise(() => undefined);
    const hello = { kind: "hello", version: 2, versionMin: 2, features: this.features };
    return Promise.resolve({ ...hello, software: "test", incarnation: "d1" } as never);
  }

  send(message: ControlMessage): void {
    this.sent.push(message);
  }

  listen(): void {
    throw new Error("a probe waits for its answer");
  }

  close(code: number): void {
    this.closeCode = code;
  }
}

function ask(
  clock: ManualClock,
  control: () => Promise<Channel>,
  probe: Promise<ControlMessageOf<"probe">> = Promise.resolve(PROBE),
): Promise<PeerAnswer> {
  const identity = { software: "test", incarnation: "s1" };
  return askPeer({ dialer: { control }, identity, logger, clock }, probe);
}

const kindsOf = ({ sent }: HangingChannel): Kind[] => sent.map(({ kind }) => kind);

/** Until somebody waits for time to pass. */
async function timerOf(clock: ManualClock): Promise<void> {
  while (clock.timerCount === 0) await Promise.resolve();
}

test("a dest that takes the connection and says nothing is not waited for", async () => {
  const clock = new ManualClock();
  const answer = ask(clock, () => new Promise(() => undefined));
  await timerOf(clock);
  clock.advance(5000);
  expect(await answer).toMatchObject({
    kind: "failed",
    error: { detail: { code: "peer-unreachable" } },
  });
  expect(clock.timerCount).toBe(0);
});

test("one that does not answer a probe is not waited for, and the connection is closed", async () => {
  const clock = new ManualClock();
  const channel = new HangingChannel();
  const answer = ask(clock, () => Promise.resolve(channel));
  while (!kindsOf(channel).includes("probe")) await Promise.resolve();
  await timerOf(clock);
  clock.advance(5000);
  expect(await answer).toMatchObject({
    kind: "silent",
    reason: expect.stringContaining("5000 ms") as string,
  });
  expect(channel.closeCode).toBe(4000);
});

test("a probe that cannot be made is not sent", async () => {
  const channel = new HangingChannel();
  const failing = Promise.reject(new Error("no such image"));
  const answer = await ask(new ManualClock(), () => Promise.resolve(channel), failing);
  expect(answer).toMatchObject({ kind: "silent", reason: "no such image" });
  expect(kindsOf(channel)).toEqual(["hello"]);
});

test.each([
  ["does not know", ["probe", "attached"], undefined],
  ["knows", ["probe", "attached", "probe-attached"], "it has a usb-tablet"],
])(
  "a dest that %s of attached guests is told accordingly why none can be launched",
  async (_, features, told) => {
    const clock = new ManualClock();
    const channel = new HangingChannel(features);
    const probe = Promise.resolve({ ...PROBE, launchRefusal: "it has a usb-tablet" });
    const answer = ask(clock, () => Promise.resolve(channel), probe);
    while (!kindsOf(channel).includes("probe")) await Promise.resolve();
    await timerOf(clock);
    clock.advance(5000);
    await answer;
    const [sent] = channel.sent.filter((message) => message.kind === "probe");
    expect(sent?.launchRefusal).toBe(told);
  },
);
