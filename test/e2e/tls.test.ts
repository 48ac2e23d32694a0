/**
 * Agents with certificates: what nobody of the data paths notices, what operators do with them, and who
 * is kept out.
 */
import { once } from "node:events";
import { mkdtemp, rm } from "node:fs/promises";
import { connect as connectPlain, type Socket } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { connect, type ConnectionOptions } from "node:tls";
import { afterAll, beforeAll, describe, expect, it, onTestFinished } from "vitest";
import { PeerTls } from "../../packages/agent/src/index.ts";
import { AgentProcess, TlsDirectory, type ApiProblem } from "@vmferry/testkit";
import { expectArrives, expectMoves, expectWorksAtSource } from "../expect-guest.ts";
import type { MovingGuest } from "../moving-guest.ts";
import { useLab } from "../test-lab.ts";

const MIB = 1024 * 1024;

describe("with TLS between the agents", () => {
  let sourceFiles: TlsDirectory;
  let destFiles: TlsDirectory;
  beforeAll(async () => {
    [sourceFiles, destFiles] = await Promise.all([TlsDirectory.make(), TlsDirectory.make()]);
  });
  const test = useLab(() => ({
    source: { flags: ["--tls-dir", sourceFiles.path] },
    dest: { flags: ["--tls-dir", destFiles.path] },
    peerUrl: (port) => `wss://localhost:${port}`,
  }));
  afterAll(async () => {
    await Promise.all([sourceFiles.remove(), destFiles.remove()]);
  });

  /** Sends SIGHUP and waits until the agent has said so once more. */
  async function hangUp(agent: AgentProcess, message: string): Promise<void> {
    const count = (): number => agent.log.filter(({ msg }) => msg === message).length;
    const before = count();
    agent.signal("SIGHUP");
    await expect.poll(count, { timeout: 10_000 }).toBe(before + 1);
  }

  /** Before there is a migration, by this check alone. */
  async function refusalOf(guest: MovingGuest): Promise<string> {
    const error: unknown = await guest.migrate().catch((thrown: unknown) => thrown);
    expect(error).toMatchObject({
      detail: { code: "preflight-failed", problem: { errors: [{ field: "tls" }] } },
    });
    return (error as ApiProblem).message;
  }

  const READ_AGAIN = "certificates read again; connections that are open stay";

  async function servedSerial(): Promise<string> {
    const socket = connect({
      ...new PeerTls(sourceFiles.path, "client").options,
      ...{ host: "localhost", port: test.lab.dest.peerPort! },
    });
    try {
      await once(socket, "secureConnect");
      return socket.getPeerCertificate().serialNumber;
    } finally {
      socket.destroy();
    }
  }

  it("a guest with a disk moves, while certificates are renewed", async () => {
    await test.lab.makeDisk("disk.raw", 64 * MIB);
    const guest = await test.boot({ disks: [{ id: "disk0", image: "disk.raw" }] });
    const before = await servedSerial();
    const id = await guest.migrate({ limits: { bandwidthBytesPerSecond: 8 * MIB } });
    await guest.until(id, ({ ram }) => ram.sentBytes > MIB);
    await destFiles.put("server", "renewed-server");
    await hangUp(test.lab.dest, READ_AGAIN);
    await hangUp(test.lab.source, READ_AGAIN);
    expect(await servedSerial()).not.toBe(before);
    expect((await test.lab.source.api.migration(id)).phase).not.toBe("completed");
    const { wire } = await expectArrives(guest, id);
    expect(wire.reconnects).toBe(0);
  });

  it("memory follows a guest by connections that show certificates too", async () => {
    const guest = await test.boot({ workload: { rate: "8000" } });
    const limits = { bandwidthBytesPerSecond: 16 * MIB };
    const migration = await expectMoves(guest, { mode: "post-copy", limits });
    expect(migration.phases.map(({ phase }) => phase)).toContain("post-copy");
  });

  it("an expired certificate keeps the guest at the source until it is renewed", async () => {
    const guest = await test.boot();
    await sourceFiles.put("client", "expired-client");
    await hangUp(test.lab.source, READ_AGAIN);
    const ready = async (): Promise<unknown> =>
      (await fetch(new URL("/readyz", test.lab.source.api.url))).status;
    expect(await ready()).toBe(503);
    const sinceMs = performance.now();
    expect(await refusalOf(guest)).toMatch(
      /client-cert\.pem has expired at .*send SIGHUP to this agent/,
    );
    await expectWorksAtSource(guest, sinceMs);
    await sourceFiles.put("client", "client");
    await hangUp(test.lab.source, READ_AGAIN);
    expect(await ready()).toBe(200);
    await expectMoves(guest);
  });

  it("half of a renewal is not used, and said", async () => {
    const guest = await test.boot();
    await destFiles.put("server-cert", "server-cert");
    await destFiles.put("server-key", "client-key");
    await hangUp(test.lab.dest, "the certificates of before stay in use");
    await expectMoves(guest);
    await destFiles.put("server", "server");
  });

  it.each([
    ["of another authority", "other", /not of the authority in ca-cert\.pem here/],
    ["for another name", "elsewhere", /its certificate does not name localhost/],
    ["that has expired", "expired", /its certificate, or its authority's, has expired/],
  ])("no guest goes to a dest with a certificate %s", async (_, kind, expected) => {
    const guest = await test.boot();
    onTestFinished(async () => {
      await destFiles.put("ca-cert", "ca-cert");
      await destFiles.put("server", "server");
      await hangUp(test.lab.dest, READ_AGAIN);
    });
    if (kind === "other") await destFiles.put("ca-cert", "other-ca-cert");
    await destFiles.put("server", `${kind}-server`);
    await hangUp(test.lab.dest, READ_AGAIN);
    const sinceMs = performance.now();
    expect(await refusalOf(guest)).toMatch(expected);
    await expectWorksAtSource(guest, sinceMs);
  });

  it("a dest answers nobody whom TLS does not let in, and logs why", async () => {
    const { dest } = test.lab;
    const before = [await dest.api.guests(), await dest.api.migrations()];
    const { cert, key, ca } = new PeerTls(sourceFiles.path, "client").options;
    const [other, expired] = await Promise.all([TlsDirectory.make(), TlsDirectory.make()]);
    onTestFinished(async () => {
      await Promise.all([other.remove(), expired.remove()]);
    });
    await other.put("ca-cert", "other-ca-cert");
    await other.put("client", "other-client");
    await expired.put("client", "expired-client");
    const strangers: Record<string, ConnectionOptions | null> = {
      "in plaintext": null,
      "without a certificate": { ca },
      "with TLS 1.2": { cert, key, ca, maxVersion: "TLSv1.2" },
      "of another authority": { ...new PeerTls(other.path, "client").options, ca },
      "with an expired certificate": { ...new PeerTls(expired.path, "client").options, ca },
    };
    for (const [name, options] of Object.entries(strangers)) {
      expect(await answerTo(options, dest.peerPort!), name).not.toContain("HTTP");
    }
    expect(await answerTo({ cert, key, ca }, dest.peerPort!)).toMatch(/^HTTP\/1\.1 101 /);
    expect([await dest.api.guests(), await dest.api.migrations()]).toEqual(before);
    const told = dest.log.find(({ msg }) => msg === "a source agent was refused by TLS");
    expect(told).toMatchObject({ address: expect.stringContaining("127.0.0.1") as string });
    expect(told?.["reason"]).toMatch(/it speaks without TLS: set VMFERRY_TLS_DIR there/);
  });

  it("a dest whose certificates do not fit does not start, and says which", async () => {
    await test.lab.dest.stop();
    await destFiles.put("server-key", "client-key");
    await expect(test.lab.startDest()).rejects.toThrow(
      "VMFERRY_TLS_DIR: server-key.pem is not the key of server-cert.pem",
    );
    await destFiles.put("server", "server");
    await test.lab.startDest();
  });
});

describe("without TLS", () => {
  let directory: string;
  beforeAll(async () => {
    directory = await mkdtemp(join(tmpdir(), "vmferry-plain-"));
  });
  afterAll(() => rm(directory, { recursive: true }));

  it.each([
    ["dest", "--peer-listen", "0.0.0.0:0", "guests would arrive unencrypted on 0.0.0.0:0"],
    [
      "source",
      "--peers",
      "host-b=ws://192.0.2.7:7081",
      "guests would go to host-b (ws://192.0.2.7:7081) unencrypted",
    ],
  ] as const)(
    "a %s agent speaks to other hosts only where VMFERRY_INSECURE allows it",
    async (role, flag, value, message) => {
      const start = (environment: Readonly<Record<string, string>>): Promise<AgentProcess> =>
        AgentProcess.start({
          role,
          flags: [
            ...["--state-dir", join(directory, role), "--image-dir", join(directory, "images")],
            ...["--api-listen", "127.0.0.1:0", flag, value],
          ],
          environment: { VMFERRY_PEER_TOKEN: "a-secret-of-both", ...environment },
        });
      await expect(start({})).rejects.toThrow(message);
      const agent = await start({ VMFERRY_INSECURE: "1" });
      expect(await agent.stop()).toBe(0);
    },
  );
});

/** What the dest says to whoever asks for a control connection by these options; null: by plain TCP. */
async function answerTo(options: ConnectionOptions | null, port: number): Promise<string> {
  const target = { host: "127.0.0.1", port };
  const socket: Socket =
    options === null
      ? connectPlain(target)
      : connect({ ...options, ...target, rejectUnauthorized: false });
  let heard = "";
  const over = new Promise<void>((resolve) => {
    socket.on("data", (bytes: Buffer) => {
      heard += bytes.toString("latin1");
      if (heard.includes("\r\n\r\n")) resolve();
    });
    socket.once("close", () => {
      resolve();
    });
  });
  // That is how it is refused.
  socket.on("error", () => undefined);
  socket.write(
    [
      "GET /v1/peer/control HTTP/1.1",
      ...["Host: x", "Connection: Upgrade", "Upgrade: websocket", "Sec-WebSocket-Version: 13"],
      ...["Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==", "", ""],
    ].join("\r\n"),
  );
  await over;
  socket.destroy();
  return heard;
}
