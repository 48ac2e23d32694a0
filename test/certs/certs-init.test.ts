/** `vmferry certs init` with the real openssl, and what it made between a real server and client. */
import { once } from "node:events";
import { mkdtemp, readdir, readFile, rm, stat } from "node:fs/promises";
import type { AddressInfo } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { connect, createServer } from "node:tls";
import { afterAll, beforeAll, expect, test } from "vitest";
import { PeerTls } from "../../packages/agent/src/index.ts";
import { runCommand, type CommandOutcome } from "../../packages/cli/src/command-fixture.ts";

let lab = "";

beforeAll(async () => {
  lab = join(await mkdtemp(join(tmpdir(), "vmferry-certs-")), "lab");
  const made = await certs("--host", "host-a", "--host", "host-b,127.0.0.1,host-b.lab");
  expect(made).toMatchObject({ exitCode: 0, stderr: "" });
});

afterAll(() => rm(join(lab, ".."), { recursive: true }));

function certs(...flags: string[]): Promise<CommandOutcome> {
  return runCommand(["certs", "init", lab, ...flags], { api: "http://127.0.0.1:9" });
}

test("each host gets what VMFERRY_TLS_DIR wants, and not the authority's key", async () => {
  expect((await readdir(lab)).sort()).toEqual(["ca-cert.pem", "ca-key.pem", "host-a", "host-b"]);
  expect((await readdir(join(lab, "host-a"))).sort()).toEqual([
    "ca-cert.pem",
    "client-cert.pem",
    "client-key.pem",
    "server-cert.pem",
    "server-key.pem",
  ]);
  for (const key of ["ca-key.pem", "host-a/client-key.pem", "host-b/server-key.pem"]) {
    expect((await stat(join(lab, key))).mode & 0o777).toBe(0o600);
  }
});

test("doctor finds nothing wrong with it", async () => {
  const { stdout } = await runCommand(
    ["doctor", "--json", "--tls-dir", join(lab, "host-b"), "--qemu", "/nonexistent"],
    { api: "http://127.0.0.1:9" },
  );
  const { checks } = JSON.parse(stdout) as { checks: { name: string; status: string }[] };
  expect(checks.find(({ name }) => name === "certificates")).toMatchObject({ status: "pass" });
});

test("two hosts agree on TLS 1.3 by any name of the server, and by no other", async () => {
  const server = createServer(new PeerTls(join(lab, "host-b"), "server").options, (socket) => {
    socket.end("in");
  });
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  const options = new PeerTls(join(lab, "host-a"), "client").options;
  const { port } = server.address() as AddressInfo;
  const attempt = async (servername: string): Promise<string> => {
    const socket = connect({ ...options, host: "127.0.0.1", port, servername });
    let heard = "";
    socket.on("data", (bytes: Buffer) => (heard += bytes.toString()));
    try {
      await once(socket, "secureConnect");
      expect(socket.getProtocol()).toBe("TLSv1.3");
      await once(socket, "end");
      return heard;
    } catch (error) {
      return (error as NodeJS.ErrnoException).code ?? "";
    } finally {
      socket.destroy();
    }
  };
  expect(await attempt("host-b")).toBe("in");
  expect(await attempt("host-b.lab")).toBe("in");
  expect(await attempt("")).toBe("in");
  expect(await attempt("host-a")).toBe("ERR_TLS_CERT_ALTNAME_INVALID");
  server.close();
});

test("a host is added later by the same authority, and none is overwritten", async () => {
  const authority = await readFile(join(lab, "ca-cert.pem"), "utf8");
  const taken = await certs("--host", "host-c", "--host", "host-a");
  expect(taken).toMatchObject({ exitCode: 1 });
  expect(taken.stderr).toContain("host-a is there already: remove it to have");
  expect(await readdir(lab)).not.toContain("host-c");
  expect(await certs("--host", "host-c")).toMatchObject({ exitCode: 0 });
  expect(await readFile(join(lab, "host-c", "ca-cert.pem"), "utf8")).toBe(authority);
});
