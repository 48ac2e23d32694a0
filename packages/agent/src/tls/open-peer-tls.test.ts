import { afterEach, beforeEach, expect, test } from "vitest";
import { TlsDirectory } from "@vmferry/testkit";
import { createLogger, type Logger } from "../log.ts";
import { openPeerTls } from "./open-peer-tls.ts";

let directory: TlsDirectory;
let lines: string[];
let logger: Logger;

beforeEach(async () => {
  directory = await TlsDirectory.make();
  lines = [];
  const stream = { write: (line: string): void => void lines.push(line) };
  logger = createLogger({ role: "dest", level: "info", stream });
});

afterEach(async () => {
  process.removeAllListeners("SIGHUP");
  await directory.remove();
});

test("without a directory there is no TLS, and SIGHUP does what it does to any program", () => {
  expect(openPeerTls({ role: "dest", tlsDir: null }, logger)).toBeNull();
  expect(process.listenerCount("SIGHUP")).toBe(0);
});

test.each([
  ["source", "client"],
  ["dest", "server"],
] as const)("the %s is a TLS %s", (role, use) => {
  const tls = openPeerTls({ role, tlsDir: directory.path }, logger);
  expect(tls?.expiries.map(({ certificate }) => certificate)).toEqual(["ca", use]);
});

test("SIGHUP reads the files again", async () => {
  const tls = openPeerTls({ role: "dest", tlsDir: directory.path }, logger)!;
  const before = tls.options.cert;
  await directory.put("server", "renewed-server");
  process.emit("SIGHUP");
  expect(tls.options.cert).not.toBe(before);
  expect(lines.at(-1)).toContain("certificates read again");
});

test("SIGHUP amid a renewal is logged with the reason, and changes nothing", async () => {
  const tls = openPeerTls({ role: "dest", tlsDir: directory.path }, logger)!;
  const before = tls.options;
  await directory.put("server-cert", "renewed-server-cert");
  process.emit("SIGHUP");
  expect(tls.options).toEqual(before);
  expect(lines.at(-1)).toContain("server-key.pem is not the key of server-cert.pem");
});

test("an agent that nobody will accept starts, and says so", async () => {
  await directory.put("server", "expired-server");
  openPeerTls({ role: "dest", tlsDir: directory.path }, logger);
  expect(lines.at(-1)).toContain("server-cert.pem has expired at 2021-01-01T00:00:00.000Z");
});
