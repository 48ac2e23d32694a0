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
import { PeerDialer, type OpenBulkConnection } from "../adapters/peer-dialer.ts";
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
const TRACE_PARENT = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
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

const answer =
  (message: ControlMessage) =>
  (connection: ScriptedConnection): void => {
    connection.send(message);
  };

beforeEach(async () => {
  clock = new ManualClock();
  abort = new AbortController();
  script = { hello: answer(hello), offer: answer(accept) };
  onBulk = () => undefined;
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
    if (message.kind === "offer") offered = message;
    script[message.kind]?.(connection);
  }
}

let seen: string[] = [];
let offered: ControlMessageOf<"offer"> | null;
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
    traceParent: TRACE_PARENT,
    logger: createLogger({ role: "source", level: "info", stream: silent }),
    clock,
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

  test.each([
    ["is passed to a dest that reads it", ["trace"], { ...offer, traceparent: TRACE_PARENT }],
    ["is kept from an older one, which would refuse the offer", ["zstd"], offer],
  ])("the caller's trace %s", async (_, features, expected) => {
    script.hello = answer({ ...hello, features });
    const link = await open();
    expect(offered).toEqual(expected);
    link.close();
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
    onBulk = () => {
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

  test("drops a message when the control connection is gone", async () => {
    const link = await open();
    control().socket.terminate();
    expect(await link.control.closed).toMatchObject({ code: "peer-lost" });
    link.send(running);
    link.close();
  });

  test("tells at once that the control connection broke", async () => {
    const link = await open();
    const reasons: Error[] = [];
    link.onLost((reason) => reasons.push(reason));
    control().socket.terminate();
    await expect.poll(() => reasons.length).toBe(1);
    expect(reasons).toMatchObject([{ code: "peer-lost" }]);
    link.close();
  });

  test("waits for the dest's reason when a bulk connection ends", async () => {
    const link = await open();
    const reasons: Error[] = [];
    link.onLost((reason) => reasons.push(reason));
    const timers = clock.timerCount;
    bulks()[0]!.socket.close(CloseCode.SESSION_ENDED);
    await expect.poll(() => clock.timerCount).toBe(timers + 1);
    clock.advance(499);
    expect(reasons).toEqual([]);
    clock.advance(2);
    expect(reasons).toMatchObject([{ detail: { closeCode: CloseCode.SESSION_ENDED } }]);
    link.close();
  });
});

describe("reconnecting", () => {
  test("names the hand-over on a new control connection, whose messages go to the same listener", async () => {
    const link = await open();
    const kinds: string[] = [];
    link.control.listen(({ kind }) => kinds.push(kind));
    control().socket.terminate();
    await link.control.closed;
    const resumed: ControlMessage[] = [];
    script.resume = (connection) => {
      resumed.push(running);
      connection.send(running);
    };
    expect(await link.control.resume(about)).toBe(true);
    await expect.poll(() => kinds).toEqual(["running"]);
    expect(resumed).toHaveLength(1);
    link.send(running);
    await expect.poll(() => seen.at(-1)).toBe("running");
    link.close();
  });

  test("is false while the dest cannot be asked, and may be tried again", async () => {
    const link = await open();
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
