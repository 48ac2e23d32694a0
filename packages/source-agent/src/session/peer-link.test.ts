import { afterEach, beforeEach, describe, expect, test } from "vitest";
import { createLogger, ManualClock } from "@vmferry/agent";
import {
  CloseCode,
  limits,
  ourHello,
  type ControlKind,
  type ControlMessage,
  type ControlMessageOf,
} from "@vmferry/protocol";
import type { OpenBulkConnection } from "../adapters/bulk-socket.ts";
import { PeerDialer } from "../adapters/peer-dialer.ts";
import { ScriptedDest, type ScriptedConnection } from "../adapters/scripted-dest.ts";
import { PeerLink } from "./peer-link.ts";

const offer: ControlMessageOf<"offer"> = {
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
  witness: null,
};
const session = "5e".repeat(32);
const accept: ControlMessageOf<"accept"> = {
  kind: "accept",
  migrationId: "m1",
  epoch: 3,
  session,
  creditBytes: limits.CREDIT_BYTES_MAX,
  qemuVersion: "10.0.2",
  witness: false,
};
const hello = ourHello({ software: "vmferry test", incarnation: "d1" });
const running: ControlMessageOf<"running"> = {
  kind: "running",
  migrationId: "m1",
  epoch: 3,
  generation: 1,
  incarnation: "d1",
};

const about = { migrationId: "m1", epoch: 3, generation: 1, incarnation: "s1" };

let dest: ScriptedDest;
let clock: ManualClock;
let abort: AbortController;
/** What the dest does with a message of a control connection, by its kind. */
let script: Partial<Record<ControlKind, (connection: ScriptedConnection) => void>>;
let onBulk: (connection: ScriptedConnection) => void;
let onControl: (message: ControlMessage) => void;

const answer =
  (message: ControlMessage) =>
  (connection: ScriptedConnection): void => {
    connection.send(message);
  };

beforeEach(async () => {
  clock = new ManualClock();
  abort = new AbortController();
  script = { hello: answer(hello), offer: answer(accept) };
  onControl = () => undefined;
  onBulk = answer({ kind: "received", received: 0 });
  dest = await ScriptedDest.open((connection) => {
    if (connection.path === "/v1/peer/bulk") onBulk(connection);
    else void follow(connection);
  });
});

afterEach(async () => {
  await dest.close();
});

async function follow(connection: ScriptedConnection): Promise<void> {
  for (;;) {
    const message = await connection.next();
    seen.push(message.kind);
    onControl(message);
    script[message.kind]?.(connection);
  }
}

let seen: string[] = [];
beforeEach(() => {
  seen = [];
});

function open(
  url = dest.url,
  dialer = new PeerDialer({ url, token: null }, clock),
): Promise<PeerLink> {
  const silent = { write: (): void => undefined };
  return PeerLink.open({
    dialer,
    identity: { software: "vmferry test", incarnation: "s1" },
    offer,
    logger: createLogger({ role: "source", level: "info", stream: silent }),
    clock,
    random: () => 0.5,
    signal: abort.signal,
  });
}

function control(): ScriptedConnection {
  return dest.connections.findLast(({ path }) => path === "/v1/peer/control")!;
}

function bulks(): ScriptedConnection[] {
  return dest.connections.filter(({ path }) => path === "/v1/peer/bulk");
}

/** Lets the close of a connection be given up where the other side does not answer it. */
async function allClosed(): Promise<void> {
  const open = (): number => {
    clock.advance(1001);
    return dest.connections.filter(({ closeCode }) => closeCode === null).length;
  };
  await expect.poll(open, { interval: 5 }).toBe(0);
}

describe("opening a link", () => {
  test("exchanges hellos, offers the guest, and opens every bulk connection with the secret", async () => {
    const link = await open();
    expect(seen).toEqual(["hello", "offer"]);
    expect(link.accept).toEqual(accept);
    expect(link.bulk).toHaveLength(3);
    const hellos = await Promise.all(bulks().map((bulk) => bulk.next()));
    expect(hellos).toEqual(
      [0, 1, 2].map((index) => ({
        kind: "bulk-hello",
        version: limits.PROTOCOL_VERSION,
        migrationId: "m1",
        session,
        index,
      })),
    );
    link.close();
    expect(await control().closed()).toBe(CloseCode.DONE);
    await allClosed();
  });

  test("says that the dest cannot be reached when nobody listens", async () => {
    const { url } = dest;
    await dest.close();
    await expect(open(url)).rejects.toMatchObject({ code: "peer-unreachable" });
  });

  test.each(["hello", "offer"] as const)(
    "fails with the dest's reason when it rejects the %s",
    async (kind) => {
      const text = "this dest does not know that machine";
      script[kind] = answer({ kind: "reject", code: "machine-type-unsupported", text });
      const failed = open();
      await expect(failed).rejects.toMatchObject({ code: "machine-type-unsupported" });
      await expect(failed).rejects.toThrow(text);
      await allClosed();
      expect(bulks()).toEqual([]);
    },
  );

  test("says that the peer refused when its reason is none that we know", async () => {
    script.offer = answer({ kind: "reject", code: "of-a-later-release", text: "no" });
    await expect(open()).rejects.toMatchObject({ code: "peer-refused" });
  });

  test("is refused when there is no version that both speak", async () => {
    script.hello = answer({ ...hello, version: 9, versionMin: 9 });
    await expect(open()).rejects.toMatchObject({ code: "protocol-version-unsupported" });
    await allClosed();
    expect(seen).toEqual(["hello"]);
  });

  test.each([
    ["hello", running],
    ["hello", accept],
    ["offer", hello],
    ["offer", running],
  ] as const)("is refused when the dest answers %s with something else", async (kind, message) => {
    script[kind] = answer(message);
    await expect(open()).rejects.toMatchObject({ code: "protocol-violation" });
    await allClosed();
  });

  test.each(["hello", "offer"] as const)("ends when the dest leaves after %s", async (kind) => {
    script[kind] = ({ socket }) => {
      socket.close();
    };
    await expect(open()).rejects.toMatchObject({ code: "peer-lost" });
    await allClosed();
  });
});

describe("aborting", () => {
  /** Aborts when `at` happens, and checks that the dest is left with nothing open. */
  async function abortsCleanly(opening: Promise<PeerLink>): Promise<void> {
    await expect(opening).rejects.toThrow();
    await allClosed();
  }

  test("before anything was dialled leaves the dest alone", async () => {
    abort.abort(new Error("cancelled"));
    await expect(open()).rejects.toThrow("cancelled");
    expect(dest.connections).toEqual([]);
  });

  test("while the dest's hello is awaited closes the control connection", async () => {
    script.hello = () => {
      abort.abort(new Error("cancelled"));
    };
    await abortsCleanly(open());
    expect(control().closeCode).toBe(CloseCode.SESSION_ENDED);
    expect(seen).toEqual(["hello"]);
  });

  test("while the offer is being judged closes the control connection", async () => {
    script.offer = () => {
      abort.abort(new Error("cancelled"));
    };
    await abortsCleanly(open());
    expect(control().closeCode).toBe(CloseCode.SESSION_ENDED);
  });

  test.each([1, 2, 3])("at bulk connection %i closes those that were opened", async (count) => {
    onBulk = (connection) => {
      connection.send({ kind: "received", received: 0 });
      if (bulks().length === count) abort.abort(new Error("cancelled"));
    };
    await abortsCleanly(open());
    expect(bulks()).toHaveLength(count);
  });

  test("just when the last bulk connection is open closes them all", async () => {
    class LateAbort extends PeerDialer {
      override async bulk(...given: Parameters<PeerDialer["bulk"]>): Promise<OpenBulkConnection> {
        const connection = await super.bulk(...given);
        if (given[0].index === 2) abort.abort(new Error("cancelled"));
        return connection;
      }
    }
    const { url } = dest;
    await abortsCleanly(open(url, new LateAbort({ url, token: null }, clock)));
    expect(bulks()).toHaveLength(3);
  });

  test("closes what was opened when a dest does not answer the close", async () => {
    script.offer = ({ socket }) => {
      socket.pause();
      abort.abort(new Error("cancelled"));
    };
    const failed = expect(open()).rejects.toThrow();
    await expect.poll(() => abort.signal.aborted, { interval: 5 }).toBe(true);
    clock.advance(1001);
    await failed;
  });

  test("after the link is open is none of its business", async () => {
    const link = await open();
    abort.abort(new Error("cancelled"));
    control().send(running);
    const message = await new Promise((resolve) => {
      link.control.listen(resolve);
    });
    expect(message).toEqual(running);
    link.close();
  });
});

describe("an open link", () => {
  test("gives the listener what came before it listened", async () => {
    script.offer = (connection) => {
      connection.send(accept);
      connection.send(running);
      connection.send({ kind: "credit", bytes: 5 });
    };
    const link = await open();
    const kinds: string[] = [];
    link.control.listen(({ kind }) => kinds.push(kind));
    await expect.poll(() => kinds).toEqual(["running", "credit"]);
    link.close();
  });

  test("tells when the dest has ended the session, and dials no more", async () => {
    const link = await open();
    control().socket.close(CloseCode.SESSION_ENDED);
    expect(await lossOf(link)).toMatchObject({ detail: { code: "peer-lost", closeCode: 4004 } });
    link.close();
    await allClosed();
    expect(dest.connections).toHaveLength(4);
  });

  test("waits for the dest's reason when it ends a bulk connection", async () => {
    const link = await open();
    const reasons: Error[] = [];
    link.onLost((reason) => reasons.push(reason));
    const sinceMs = clock.nowMs();
    bulks()[0]!.socket.close(CloseCode.DONE);
    await inTime(() => reasons.length > 0, 100);
    expect(clock.nowMs() - sinceMs).toBeGreaterThanOrEqual(500);
    expect(reasons).toMatchObject([{ detail: { closeCode: CloseCode.DONE } }]);
    link.close();
  });
});

/** What the link gives for its end. */
function lossOf(link: PeerLink): Promise<Error> {
  return new Promise((resolve) => {
    link.onLost(resolve);
  });
}

/** Lets time pass until it is so. */
async function inTime(condition: () => boolean, stepMs = 200): Promise<void> {
  for (let rounds = 0; !condition(); rounds++) {
    if (rounds > 400) throw new Error("it does not come to that");
    clock.advance(stepMs);
    await new Promise((resolve) => setTimeout(resolve, 2));
  }
}

describe("a link that breaks", () => {
  const frame = (text: string): Buffer => Buffer.from(text);
  const credit: ControlMessage = { kind: "credit", bytes: 5 };
  let resumes: ControlMessage[];

  beforeEach(() => {
    resumes = [];
    script.resume = (connection) => {
      connection.send({ kind: "received", received: 0 });
    };
  });

  test("goes on over another control connection, which repeats what did not come", async () => {
    const link = await open();
    const kinds: string[] = [];
    link.control.listen(({ kind }) => kinds.push(kind));
    control().send(credit);
    await expect.poll(() => kinds).toEqual(["credit"]);
    control().socket.terminate();
    await inTime(() => !link.whole);
    link.send(running);
    await inTime(() => link.whole);
    await expect.poll(() => seen).toEqual(["hello", "offer", "hello", "resume", "running"]);
    control().send(running);
    await expect.poll(() => kinds).toEqual(["credit", "running"]);
    link.close();
  });

  test("proves the session, and says what has come of the dest's messages", async () => {
    const link = await open();
    link.control.listen(() => undefined);
    control().send(credit);
    control().send(credit);
    await answeredPing(control());
    onControl = (message) => {
      if (message.kind === "resume") resumes.push(message);
    };
    control().socket.terminate();
    await inTime(() => resumes.length > 0);
    expect(resumes).toEqual([{ kind: "resume", ...about, session, received: 2 }]);
    link.close();
  });

  test("sends a frame again that the dest does not have, and no other", async () => {
    const link = await open();
    const [lane] = link.bulk;
    for (const text of ["a", "b", "c"]) lane!.send(frame(text), () => undefined);
    const first = bulks()[0]!;
    await expect.poll(() => first.received.length).toBe(4);
    onControl = () => undefined;
    onBulk = answer({ kind: "received", received: 2 });
    first.socket.terminate();
    await inTime(() => bulks().length === 4);
    const again = bulks()[3]!;
    expect(await again.next()).toMatchObject({ kind: "bulk-hello", index: 0, session });
    expect((await again.nextBytes()).toString()).toBe("c");
    expect(lane!.resentBytes).toBe(1);
    link.close();
  });

  test("dials every connection anew when the control connection is lost", async () => {
    const link = await open();
    control().socket.terminate();
    await inTime(() => dest.connections.length === 8);
    await inTime(() => link.whole);
    await allButLast(4);
    link.close();
  });

  test("is lost when the dest does not know the session any more", async () => {
    const link = await open();
    script.resume = answer({ kind: "reject", code: "migration-not-found", text: "started anew" });
    const lost = lossOf(link);
    control().socket.terminate();
    await inTime(() => seen.includes("resume"));
    expect(await lost).toMatchObject({ code: "peer-lost" });
    await expect(lost).resolves.toMatchObject({ message: expect.stringContaining("started anew") });
    link.close();
  });

  test("is lost when it does not come back in a minute", async () => {
    const link = await open();
    const lost = lossOf(link);
    let isLost = false;
    void lost.then(() => (isLost = true));
    const beginMs = clock.nowMs();
    await dest.close();
    await inTime(() => isLost);
    expect(clock.nowMs() - beginMs).toBeGreaterThan(limits.LINK_LOST_MS_MAX);
    expect(clock.nowMs() - beginMs).toBeLessThan(limits.LINK_LOST_MS_MAX + 5000);
    expect(await lost).toMatchObject({ code: "peer-lost" });
    link.close();
  });

  test("is lost after two seconds when the guest stands still", async () => {
    const link = await open();
    let isLost = false;
    void lossOf(link).then(() => (isLost = true));
    link.guestStandsStill();
    const beginMs = clock.nowMs();
    await dest.close();
    await inTime(() => isLost, 50);
    expect(clock.nowMs() - beginMs).toBeLessThan(limits.LINK_LOST_STUNNED_MS_MAX + 500);
    link.close();
  });

  test("is waited for before the hand-over, and not repaired after it", async () => {
    const link = await open();
    control().socket.terminate();
    await inTime(() => !link.whole);
    let mayHandOver = false;
    void link.handOver().then(() => (mayHandOver = true));
    await Promise.resolve();
    expect(mayHandOver).toBe(false);
    await inTime(() => mayHandOver);
    const count = dest.connections.length;
    control().socket.terminate();
    expect(await link.control.closed).toMatchObject({ code: "peer-lost" });
    clock.advance(10_000);
    expect(dest.connections).toHaveLength(count);
    link.close();
  });
});

/** What was sent on the connection so far has come. */
async function answeredPing({ socket }: ScriptedConnection): Promise<void> {
  const pong = new Promise((resolve) => {
    socket.once("pong", resolve);
  });
  socket.ping();
  await pong;
}

/** Of the connections so far only the last `count` are open. */
async function allButLast(count: number): Promise<void> {
  const closed = (): number => {
    clock.advance(1001);
    return dest.connections.filter(({ closeCode }) => closeCode !== null).length;
  };
  await expect.poll(closed, { interval: 5 }).toBe(dest.connections.length - count);
}

describe("asking about ownership", () => {
  test("names the hand-over on a new control connection, whose messages go to the same listener", async () => {
    const link = await open();
    const kinds: string[] = [];
    link.control.listen(({ kind }) => kinds.push(kind));
    await link.handOver();
    control().socket.terminate();
    await link.control.closed;
    const resumed: ControlMessage[] = [];
    onControl = (message) => {
      if (message.kind === "resume") resumed.push(message);
    };
    script.resume = answer(running);
    expect(await link.control.resume(about)).toBe(true);
    await expect.poll(() => kinds).toEqual(["running"]);
    expect(resumed).toEqual([{ kind: "resume", ...about, session: null, received: 0 }]);
    link.send(running);
    await expect.poll(() => seen.at(-1)).toBe("running");
    link.close();
  });

  test("is false while the dest cannot be asked, and may be tried again", async () => {
    const link = await open();
    await link.handOver();
    control().socket.terminate();
    await link.control.closed;
    script.hello = ({ socket }) => {
      socket.close();
    };
    expect(await link.control.resume(about)).toBe(false);
    script.hello = answer(hello);
    expect(await link.control.resume(about)).toBe(true);
    link.close();
  });
});
