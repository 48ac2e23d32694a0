import { afterEach, beforeEach, describe, expect, test } from "vitest";
import { CloseCode, limits, type ControlMessage } from "@vmferry/protocol";
import type { OpenBulkConnection } from "../adapters/bulk-socket.ts";
import { PeerDialer } from "../adapters/peer-dialer.ts";
import type { PeerLink } from "./peer-link.ts";
import {
  about,
  accept,
  answer,
  hello,
  lossOf,
  offer,
  PeerLinkBench,
  running,
  session,
  traceParent,
} from "./peer-link-bench.ts";

let bench: PeerLinkBench;

beforeEach(async () => {
  bench = await PeerLinkBench.open();
});

afterEach(async () => {
  await bench.dest.close();
});

describe("opening a link", () => {
  test("exchanges hellos, offers the guest, and opens every bulk connection with the secret", async () => {
    const link = await bench.open();
    expect(bench.seen).toEqual(["hello", "offer"]);
    expect(link.accept).toEqual(accept);
    expect(link.bulk).toHaveLength(3);
    const hellos = await Promise.all(bench.bulks().map((bulk) => bulk.next()));
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
    expect(await bench.control().closed()).toBe(CloseCode.DONE);
    await expect.poll(() => bench.openCount(), { interval: 5 }).toBe(0);
  });

  test.each([
    ["is passed to a dest that reads it", ["trace"], { ...offer, traceparent: traceParent }],
    ["is kept from an older one, which would refuse the offer", ["zstd"], offer],
  ])("the caller's trace %s", async (_, features, expected) => {
    bench.script.hello = answer({ ...hello, features });
    const link = await bench.open();
    expect(bench.offered).toEqual(expected);
    link.close();
    await expect.poll(() => bench.openCount(), { interval: 5 }).toBe(0);
  });

  describe("to a dest that shall read a page file", () => {
    const withKey = { ...offer, pageFileKey: "5e".repeat(32) };

    test("passes what opens it where the dest reads page files and sees the share", async () => {
      bench.script.hello = answer({ ...hello, features: ["page-file"] });
      bench.script.offer = answer({ ...accept, witness: true });
      const link = await bench.open(undefined, undefined, withKey);
      expect(bench.offered).toEqual(withKey);
      link.close();
      await expect.poll(() => bench.openCount(), { interval: 5 }).toBe(0);
    });

    test("offers nothing to one of an earlier release", async () => {
      bench.script.hello = answer({ ...hello, features: ["zstd", "trace"] });
      const failed = bench.open(undefined, undefined, withKey);
      await expect(failed).rejects.toMatchObject({ code: "fallback-unavailable" });
      await expect(failed).rejects.toThrow("upgrade it");
      await expect.poll(() => bench.openCount(), { interval: 5 }).toBe(0);
      expect(bench.seen).toEqual(["hello"]);
    });

    test("goes no further with one that does not see the share", async () => {
      bench.script.hello = answer({ ...hello, features: ["page-file"] });
      bench.script.offer = answer({ ...accept, witness: false });
      const failed = bench.open(undefined, undefined, withKey);
      await expect(failed).rejects.toMatchObject({ code: "fallback-unavailable" });
      await expect(failed).rejects.toThrow("VMFERRY_SHARED_DIR");
      await expect.poll(() => bench.openCount(), { interval: 5 }).toBe(0);
      expect(bench.bulks()).toEqual([]);
    });
  });

  test("offers a lazy disk to a dest that has them, and to no other", async () => {
    const disk = {
      sizeBytes: 512,
      dataBytes: 0,
      blockBytes: 65_536,
      proof: null,
      lazy: true,
    } as const;
    const lazy = { ...offer, disks: [disk] };
    bench.script.hello = answer({ ...hello, features: ["zstd"] });
    await expect(bench.open(undefined, undefined, lazy)).rejects.toMatchObject({
      code: "not-available",
    });
    expect(bench.offered).toBe(null);
    bench.script.hello = answer({ ...hello, features: ["lazy-disk"] });
    const link = await bench.open(undefined, undefined, lazy);
    expect(bench.offered).toEqual(lazy);
    link.close();
  });

  test("says that the dest cannot be reached when nobody listens", async () => {
    const { url } = bench.dest;
    await bench.dest.close();
    await expect(bench.open(url)).rejects.toMatchObject({ code: "peer-unreachable" });
  });

  test.each(["hello", "offer"] as const)(
    "fails with the dest's reason when it rejects the %s",
    async (kind) => {
      const text = "this dest does not know that machine";
      bench.script[kind] = answer({ kind: "reject", code: "machine-type-unsupported", text });
      const failed = bench.open();
      await expect(failed).rejects.toMatchObject({ code: "machine-type-unsupported" });
      await expect(failed).rejects.toThrow(text);
      await expect.poll(() => bench.openCount(), { interval: 5 }).toBe(0);
      expect(bench.bulks()).toEqual([]);
    },
  );

  test("says that the peer refused when its reason is none that we know", async () => {
    bench.script.offer = answer({ kind: "reject", code: "of-a-later-release", text: "no" });
    await expect(bench.open()).rejects.toMatchObject({ code: "peer-refused" });
  });

  test("is refused when there is no version that both speak", async () => {
    bench.script.hello = answer({ ...hello, version: 9, versionMin: 9 });
    await expect(bench.open()).rejects.toMatchObject({ code: "protocol-version-unsupported" });
    await expect.poll(() => bench.openCount(), { interval: 5 }).toBe(0);
    expect(bench.seen).toEqual(["hello"]);
  });

  test.each([
    ["hello", running],
    ["hello", accept],
    ["offer", hello],
    ["offer", running],
  ] as const)("is refused when the dest answers %s with something else", async (kind, message) => {
    bench.script[kind] = answer(message);
    await expect(bench.open()).rejects.toMatchObject({ code: "protocol-violation" });
    await expect.poll(() => bench.openCount(), { interval: 5 }).toBe(0);
  });

  test.each(["hello", "offer"] as const)("ends when the dest leaves after %s", async (kind) => {
    bench.script[kind] = ({ socket }) => {
      socket.close();
    };
    await expect(bench.open()).rejects.toMatchObject({ code: "peer-lost" });
    await expect.poll(() => bench.openCount(), { interval: 5 }).toBe(0);
  });
});

describe("aborting", () => {
  /** Aborts when `at` happens, and checks that the dest is left with nothing open. */
  async function abortsCleanly(opening: Promise<PeerLink>): Promise<void> {
    await expect(opening).rejects.toThrow();
    await expect.poll(() => bench.openCount(), { interval: 5 }).toBe(0);
  }

  test("before anything was dialled leaves the dest alone", async () => {
    bench.abort.abort(new Error("cancelled"));
    await expect(bench.open()).rejects.toThrow("cancelled");
    expect(bench.dest.connections).toEqual([]);
  });

  test("while the dest's hello is awaited closes the control connection", async () => {
    bench.script.hello = () => {
      bench.abort.abort(new Error("cancelled"));
    };
    await abortsCleanly(bench.open());
    expect(bench.control().closeCode).toBe(CloseCode.SESSION_ENDED);
    expect(bench.seen).toEqual(["hello"]);
  });

  test("while the offer is being judged closes the control connection", async () => {
    bench.script.offer = () => {
      bench.abort.abort(new Error("cancelled"));
    };
    await abortsCleanly(bench.open());
    expect(bench.control().closeCode).toBe(CloseCode.SESSION_ENDED);
  });

  test.each([1, 2, 3])("at bulk connection %i closes those that were opened", async (count) => {
    bench.onBulk = (connection) => {
      connection.send({ kind: "received", received: 0 });
      if (bench.bulks().length === count) bench.abort.abort(new Error("cancelled"));
    };
    await abortsCleanly(bench.open());
    expect(bench.bulks()).toHaveLength(count);
  });

  test("just when the last bulk connection is open closes them all", async () => {
    class LateAbort extends PeerDialer {
      override async bulk(...given: Parameters<PeerDialer["bulk"]>): Promise<OpenBulkConnection> {
        const connection = await super.bulk(...given);
        if (given[0].index === 2) bench.abort.abort(new Error("cancelled"));
        return connection;
      }
    }
    const { url } = bench.dest;
    await abortsCleanly(
      bench.open(url, new LateAbort({ url, token: null, tls: null }, bench.clock)),
    );
    expect(bench.bulks()).toHaveLength(3);
  });

  test("closes what was opened when a dest does not answer the close", async () => {
    bench.script.offer = ({ socket }) => {
      socket.pause();
      bench.abort.abort(new Error("cancelled"));
    };
    const failed = expect(bench.open()).rejects.toThrow();
    await expect.poll(() => bench.abort.signal.aborted, { interval: 5 }).toBe(true);
    bench.clock.advance(1001);
    await failed;
  });

  test("after the link is open is none of its business", async () => {
    const link = await bench.open();
    bench.abort.abort(new Error("cancelled"));
    bench.control().send(running);
    const message = await new Promise((resolve) => {
      link.control.listen(resolve);
    });
    expect(message).toEqual(running);
    link.close();
  });
});

describe("an open link", () => {
  test("gives the listener what came before it listened", async () => {
    bench.script.offer = (connection) => {
      connection.send(accept);
      connection.send(running);
      connection.send({ kind: "credit", bytes: 5 });
    };
    const link = await bench.open();
    const kinds: string[] = [];
    link.control.listen(({ kind }) => kinds.push(kind));
    await expect.poll(() => kinds).toEqual(["running", "credit"]);
    link.close();
  });

  test("tells when the dest has ended the session, and dials no more", async () => {
    const link = await bench.open();
    bench.control().socket.close(CloseCode.SESSION_ENDED);
    expect(await lossOf(link)).toMatchObject({ detail: { code: "peer-lost", closeCode: 4004 } });
    link.close();
    await expect.poll(() => bench.openCount(), { interval: 5 }).toBe(0);
    expect(bench.dest.connections).toHaveLength(4);
  });

  test("waits for the dest's reason when it ends a bulk connection", async () => {
    const link = await bench.open();
    const reasons: Error[] = [];
    link.onLost((reason) => reasons.push(reason));
    const sinceMs = bench.clock.nowMs();
    bench.bulks()[0]!.socket.close(CloseCode.DONE);
    await bench.inTime(() => reasons.length > 0, 100);
    expect(bench.clock.nowMs() - sinceMs).toBeGreaterThanOrEqual(500);
    expect(reasons).toMatchObject([{ detail: { closeCode: CloseCode.DONE } }]);
    link.close();
  });
});

describe("asking about ownership", () => {
  test("names the hand-over on a new control connection, whose messages go to the same listener", async () => {
    const link = await bench.open();
    const kinds: string[] = [];
    link.control.listen(({ kind }) => kinds.push(kind));
    await link.handOver();
    bench.control().socket.terminate();
    await link.control.closed;
    const resumed: ControlMessage[] = [];
    bench.onControl = (message) => {
      if (message.kind === "resume") resumed.push(message);
    };
    bench.script.resume = answer(running);
    expect(await link.control.resume(about)).toBe(true);
    await expect.poll(() => kinds).toEqual(["running"]);
    expect(resumed).toEqual([{ kind: "resume", ...about, session: null, received: 0 }]);
    link.send(running);
    await expect.poll(() => bench.seen.at(-1)).toBe("running");
    link.close();
  });

  test("is false while the dest cannot be asked, and may be tried again", async () => {
    const link = await bench.open();
    await link.handOver();
    bench.control().socket.terminate();
    await link.control.closed;
    bench.script.hello = ({ socket }) => {
      socket.close();
    };
    expect(await link.control.resume(about)).toBe(false);
    bench.script.hello = answer(hello);
    expect(await link.control.resume(about)).toBe(true);
    link.close();
  });
});
