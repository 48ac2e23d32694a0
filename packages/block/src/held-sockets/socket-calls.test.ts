import { execFileSync } from "node:child_process";
import {
  closeSync,
  mkdtempSync,
  openSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
} from "node:fs";
import { writeFileSync } from "node:fs";
import { createConnection } from "node:net";
import { once } from "node:events";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, expect, test } from "vitest";
import {
  acceptFrom,
  connectTo,
  listenOn,
  peerOf,
  poll,
  receiveMessage,
  sendMessage,
  whenReadable,
} from "./socket-calls.ts";

let directory: string;
let path: string;
let fds: number[];

beforeEach(() => {
  directory = mkdtempSync(join(tmpdir(), "calls-"));
  path = join(directory, "socket");
  fds = [];
});

afterEach(() => {
  for (const fd of fds) closeSync(fd);
  rmSync(directory, { recursive: true });
});

function pair(): [number, number] {
  const listener = listenOn(path, "messages");
  const client = connectTo(path);
  const server = acceptFrom(listener);
  fds.push(listener, client, server);
  return [client, server];
}

function openSockets(): number {
  return execFileSync("ls", ["-l", "/proc/self/fd"], {
    encoding: "latin1",
    stdio: ["ignore", "pipe", "ignore"],
  })
    .split("\n")
    .filter((line) => line.includes("socket:")).length;
}

test("a descriptor arrives as another one of the same open file", () => {
  const [client, server] = pair();
  writeFileSync(join(directory, "file"), "content");
  const sent = openSync(join(directory, "file"), "r");
  sendMessage(client, { text: "one", descriptor: sent });
  closeSync(sent);
  sendMessage(client, { text: "two", descriptor: null });
  const { text, descriptor } = receiveMessage(server)!;
  expect([text, readFileSync(descriptor!, "latin1")]).toEqual(["one", "content"]);
  fds.push(descriptor!);
  expect(receiveMessage(server)).toEqual({ text: "two", descriptor: null });
});

test("nothing has come, a message has, the peer has ended: each shows", async () => {
  const [client, server] = pair();
  expect([await whenReadable(server, 20), poll([server], 0)]).toEqual([false, []]);
  expect(() => receiveMessage(server)).toThrow("EAGAIN");
  sendMessage(client, { text: "one", descriptor: null });
  expect([await whenReadable(server, 2000), poll([client, server], -1)]).toEqual([true, [server]]);
  expect(receiveMessage(server)?.text).toBe("one");
  closeSync(fds.splice(1, 1)[0]!);
  expect([await whenReadable(server, 2000), receiveMessage(server)]).toEqual([true, null]);
  expect(() => {
    sendMessage(server, { text: "one", descriptor: null });
  }).toThrow("EPIPE");
});

test("both ends know the process at the other", () => {
  const self = { pid: process.pid, uid: process.geteuid!() };
  expect(pair().map(peerOf)).toEqual([self, self]);
});

test("what listens is this user's alone, and Node can accept on it", async () => {
  const listener = listenOn(path, "stream");
  fds.push(listener);
  expect(statSync(path).mode & 0o777).toBe(0o600);
  const client = createConnection(path);
  await once(client, "connect");
  expect(poll([listener], 2000)).toEqual([listener]);
  client.destroy();
});

test("no child of this process has any of it", () => {
  const before = openSockets();
  const [client, server] = pair();
  sendMessage(client, { text: "one", descriptor: server });
  fds.push(receiveMessage(server)!.descriptor!);
  expect(openSockets()).toBe(before);
});

test("a failure leaves no descriptor behind, and says what it was", () => {
  const before = readdirSync("/proc/self/fd").length;
  expect(() => connectTo(path)).toThrow("ENOENT");
  expect(() => listenOn(join(directory, "x".repeat(108)), "stream")).toThrow("shorter than 108");
  const listener = listenOn(path, "stream");
  expect(() => listenOn(path, "stream")).toThrow("EADDRINUSE");
  closeSync(listener);
  expect(() => connectTo(path)).toThrow(/EPROTOTYPE|ECONNREFUSED/);
  expect(readdirSync("/proc/self/fd").length).toBe(before);
});
