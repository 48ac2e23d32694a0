/** Agents with certificates: what nobody of the data paths notices, and what operators do with them. */
import { once } from "node:events";
import { connect } from "node:tls";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { PeerTls } from "../../packages/agent/src/index.ts";
import { TlsDirectory, type AgentProcess } from "@vmferry/testkit";
import { expectArrives, expectKept, expectMoves } from "../expect-guest.ts";
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

  it("an expired certificate keeps the guest at the source until it is renewed", async () => {
    const guest = await test.boot();
    await sourceFiles.put("client", "expired-client");
    await hangUp(test.lab.source, READ_AGAIN);
    const ready = async (): Promise<unknown> =>
      (await fetch(new URL("/readyz", test.lab.source.api.url))).status;
    expect(await ready()).toBe(503);
    const id = await guest.migrate();
    const { error } = await expectKept(guest, id, {
      code: "peer-unreachable",
      during: "preparing",
    });
    expect(error?.detail).toMatch(/client-cert\.pem has expired at .*send SIGHUP to this agent/);
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
