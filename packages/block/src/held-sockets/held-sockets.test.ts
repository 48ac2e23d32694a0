import { spawn, type ChildProcess } from "node:child_process";
import { once } from "node:events";
import { closeSync, existsSync, mkdtempSync, readdirSync, readFileSync, rmSync } from "node:fs";
import { createConnection, createServer, type Socket } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { createInterface } from "node:readline";
import { fileURLToPath } from "node:url";
import { afterEach, beforeEach, describe, expect, test } from "vitest";
import { HeldSockets } from "./held-sockets.ts";
import {
  acceptFrom,
  connectTo,
  listenOn,
  receiveMessage,
  sendMessage,
  whenReadable,
} from "./socket-calls.ts";

/* Real sockets, a real holder, and agents that are real processes where one has to die. */

const AGENT = fileURLToPath(new URL("held-sockets-agent.ts", import.meta.url));
let directory: string;
let path: string;
let troubles: string[];
let agents: ChildProcess[];
let clients: Socket[];

beforeEach(() => {
  directory = mkdtempSync(join(tmpdir(), "held-"));
  path = join(directory, "7b1e26d6-0.nbd");
  [troubles, agents, clients] = [[], [], []];
});

afterEach(() => {
  for (const client of clients) client.destroy();
  for (const agent of agents) agent.kill("SIGKILL");
  for (const pid of holders()) process.kill(pid, "SIGKILL");
  rmSync(directory, { recursive: true });
});

/** Pids of the holders over the directory, by what the kernel says. */
function holders(): number[] {
  const commandLineOf = (pid: string): string => {
    try {
      return readFileSync(`/proc/${pid}/cmdline`, "latin1");
    } catch {
      return ""; // It ended between the two looks.
    }
  };
  return readdirSync("/proc")
    .filter((entry) => /^\d+$/.test(entry))
    .filter((pid) => commandLineOf(pid).includes(`\0${join(directory, "holder")}\0`))
    .map(Number);
}

function open(answerMsMax = 2000): Promise<HeldSockets> {
  return HeldSockets.open({ directory, answerMsMax, onTrouble: (text) => troubles.push(text) });
}

/** Of this process no longer. */
async function hold(sockets: HeldSockets, at: string): Promise<void> {
  const { descriptor, held } = await sockets.listen(at);
  await held;
  closeSync(descriptor);
}

/** A process that accepts at the path and says its pid to whoever connects. */
async function startAgent(): Promise<ChildProcess> {
  const agent = spawn(process.execPath, [AGENT, path], { stdio: ["pipe", "pipe", "inherit"] });
  agents.push(agent);
  await once(createInterface(agent.stdout), "line");
  return agent;
}

async function killed(process: ChildProcess): Promise<void> {
  const exited = once(process, "exit");
  process.kill("SIGKILL");
  await exited;
}

async function connected(): Promise<Socket> {
  const client = createConnection(path);
  clients.push(client);
  client.on("error", () => undefined);
  await once(client, "connect");
  return client;
}

/** Also by an error. */
function closed(client: Socket): Promise<void> {
  return new Promise((resolve) =>
    client.once("close", () => {
      resolve();
    }),
  );
}

async function said(client: Socket): Promise<string> {
  const [bytes] = (await once(client, "data")) as [Buffer];
  return bytes.toString();
}

describe("after the death of an agent", () => {
  test("whoever connects waits, and is accepted by the next agent", async () => {
    const first = await startAgent();
    expect(await said(await connected())).toBe(`${first.pid!}`);
    await killed(first);
    const waiting = await connected();
    const answer = said(waiting);
    const second = await startAgent();
    expect(await answer).toBe(`${second.pid!}`);
    expect(holders()).toHaveLength(1);
  });

  test("and of its holder, whoever connects is refused until the socket is made anew", async () => {
    const first = await startAgent();
    await killed(first);
    const waiting = await connected();
    const reset = closed(waiting);
    for (const pid of holders()) process.kill(pid, "SIGKILL");
    await reset;
    await expect(connected()).rejects.toMatchObject({ code: "ECONNREFUSED" });
    const second = await startAgent();
    expect(await said(await connected())).toBe(`${second.pid!}`);
  });

  test("a holder that does not answer is ended, with whoever waits there", async () => {
    await killed(await startAgent());
    const waiting = await connected();
    const [stopped] = holders();
    process.kill(stopped!, "SIGSTOP");
    const reset = closed(waiting);
    const sockets = await open(500);
    const server = createServer((socket) => socket.end("served"));
    server.listen({ fd: (await sockets.listen(path)).descriptor });
    await reset;
    expect(await said(await connected())).toBe("served");
    expect(troubles).toEqual([expect.stringContaining(`process ${stopped!} did not answer`)]);
    expect(holders()).not.toContain(stopped);
    server.close();
    sockets.close();
  });

  test("a socket that was replaced is never taken for the one that is held", async () => {
    await killed(await startAgent());
    rmSync(path);
    const second = await startAgent();
    expect(await said(await connected())).toBe(`${second.pid!}`);
  });
});

/** As a holder does whose descriptors an agent has no room for; what it is asked, in order. */
async function answerWithout(control: number, requests: string[]): Promise<void> {
  await whenReadable(control, 2000);
  const agent = acceptFrom(control);
  for (let verb = ""; verb !== "hold"; requests.push(verb)) {
    await whenReadable(agent, 2000);
    const { text, descriptor } = receiveMessage(agent)!;
    verb = text.split(" ")[0]!;
    if (descriptor !== null) closeSync(descriptor);
    sendMessage(agent, { text: "ok", descriptor: null });
  }
  closeSync(agent);
}

test("a socket whose descriptor was lost on its way is given up before it is made anew", async () => {
  closeSync(listenOn(path, "stream"));
  const control = listenOn(join(directory, "holder"), "messages");
  const requests: string[] = [];
  const answered = answerWithout(control, requests);
  const sockets = await open();
  const { descriptor, held } = await sockets.listen(path);
  await held;
  await answered;
  expect([requests, troubles]).toEqual([["take", "drop", "hold"], []]);
  for (const each of [descriptor, control]) closeSync(each);
  sockets.close();
});

describe("the holder", () => {
  test("ends with the last socket that is given up, and leaves nothing to connect to", async () => {
    const sockets = await open();
    const other = join(directory, "7b1e26d6-1.nbd");
    for (const each of [path, other]) await hold(sockets, each);
    await sockets.giveUp(path);
    expect([existsSync(path), existsSync(other), holders().length]).toEqual([false, true, 1]);
    await sockets.giveUp(other);
    await expect.poll(holders).toEqual([]);
    expect(readdirSync(directory)).toEqual(["compiled"]);
    await hold(sockets, path);
    expect([holders().length, troubles]).toEqual([1, []]);
    sockets.close();
  });

  test("ends when no agent has come in time, and refuses whoever has waited", async () => {
    const onTrouble = expect.unreachable;
    const sockets = await HeldSockets.open({ directory, onTrouble, aloneMsMax: 100 });
    await hold(sockets, path);
    const waiting = closed(await connected());
    sockets.close();
    await waiting;
    await expect.poll(holders).toEqual([]);
    await expect(connected()).rejects.toMatchObject({ code: "ECONNREFUSED" });
  });

  test("is not waited for by whoever listens, on several sockets at once", async () => {
    const sockets = await open();
    const paths = [path, sockets.newPath("0"), sockets.newPath("1")];
    const listening = await Promise.all(paths.map((each) => sockets.listen(each)));
    expect(holders()).toEqual([]);
    await connected();
    await Promise.all(listening.map(({ held }) => held));
    expect([holders().length, troubles]).toEqual([1, []]);
    for (const { descriptor } of listening) closeSync(descriptor);
    sockets.close();
  });

  test("lets go of whatever an earlier agent has left that is not served any more", async () => {
    const earlier = await open();
    const other = earlier.newPath("0");
    for (const each of [path, other]) await hold(earlier, each);
    earlier.close();
    const sockets = await open();
    await sockets.giveUpAllBut([path]);
    expect([existsSync(path), existsSync(other), holders().length]).toEqual([true, false, 1]);
    await sockets.giveUpAllBut([]);
    await expect.poll(holders).toEqual([]);
    expect([readdirSync(directory), troubles]).toEqual([["compiled"], []]);
    sockets.close();
  });

  test("is not started for what is only given up", async () => {
    const sockets = await open();
    await sockets.giveUp(path);
    expect([holders(), troubles]).toEqual([[], []]);
  });

  test("has little memory, and nothing of the agent's environment", async () => {
    await startAgent();
    const [pid] = holders();
    const status = readFileSync(`/proc/${pid!}/status`, "latin1");
    expect(Number(/^RssAnon:\s+(\d+) kB$/m.exec(status)![1])).toBeLessThan(40 * 1024);
    expect(readFileSync(`/proc/${pid!}/environ`, "latin1")).not.toContain("PATH=");
  });

  test.each([
    ["that is empty", ""],
    ["that lacks its descriptor", "hold 1:2"],
    ["for a path", "take ../x"],
    ["for half a key", "take 1"],
    ["that it does not know", "give 1:2"],
    ["that is too long", `take ${"1".repeat(100)}:1`],
  ])("hangs up on a request %s, and serves the next agent", async (_, text) => {
    await killed(await startAgent());
    const connection = connectTo(join(directory, "holder"));
    sendMessage(connection, { text, descriptor: null });
    expect(await whenReadable(connection, 2000)).toBe(true);
    expect(receiveMessage(connection)).toBe(null);
    closeSync(connection);
    const answer = said(await connected());
    const next = await startAgent();
    expect(await answer).toBe(`${next.pid!}`);
  });
});
