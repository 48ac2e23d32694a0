import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { QmpClient, type QmpConnectOptions } from "./qmp-client.ts";
import { migrationStatusOf, type QmpEvent } from "./qmp-event.ts";
import { GREETING, ScriptedQmpPeer, type SentCommand } from "./scripted-qmp-peer.ts";

let peer: ScriptedQmpPeer;
let clients: QmpClient[];

beforeEach(async () => {
  clients = [];
  peer = await ScriptedQmpPeer.listen();
});

afterEach(async () => {
  await Promise.all(clients.map((client) => client.close()));
  await peer.close();
});

async function connect(options: Partial<QmpConnectOptions> = {}): Promise<QmpClient> {
  const client = await QmpClient.connect({ path: peer.path, timeoutMs: 5000, ...options });
  clients.push(client);
  return client;
}

const RUNNING = { status: "running", running: true };
const reply = (command: SentCommand, value: unknown = RUNNING): void => {
  peer.send({ return: value, id: command.id });
};

describe("QmpClient.connect", () => {
  it("negotiates and tells QEMU's version", async () => {
    const client = await connect();
    expect(client.version).toEqual({ major: 10, minor: 0, micro: 2 });
    expect(client.isOpen).toBe(true);
    expect(peer.commands.map(({ execute }) => execute)).toEqual(["qmp_capabilities"]);
  });

  it("says which path nobody listens on", async () => {
    await expect(connect({ path: peer.path + ".absent" })).rejects.toMatchObject({
      detail: { code: "qmp-connect-failed", path: peer.path + ".absent", systemCode: "ENOENT" },
    });
  });

  it("refuses a path that would be cut off", async () => {
    await expect(connect({ path: "/tmp/" + "x".repeat(103) })).rejects.toMatchObject({
      detail: { code: "qmp-connect-failed", systemCode: "ENAMETOOLONG" },
    });
  });

  it("gives up on a QEMU that does not greet", async () => {
    peer.greeting = "";
    await expect(connect({ timeoutMs: 50 })).rejects.toMatchObject({
      detail: { code: "qmp-timeout", waitingFor: "greeting", timeoutMs: 50 },
    });
  });

  it("gives up on a QEMU that greets and does not negotiate", async () => {
    peer.answersCapabilities = false;
    await expect(connect({ timeoutMs: 50 })).rejects.toMatchObject({ code: "qmp-timeout" });
  });

  it("stops when its signal is aborted, before or while connecting", async () => {
    const reason = new Error("enough");
    await expect(connect({ signal: AbortSignal.abort(reason) })).rejects.toBe(reason);
    peer.greeting = "";
    const controller = new AbortController();
    const connecting = connect({ signal: controller.signal });
    controller.abort(reason);
    await expect(connecting).rejects.toBe(reason);
  });

  it.each([
    ["a greeting without version", '{"QMP":{}}\r\n', "qmp-unexpected-shape"],
    [
      "a version that is a text",
      '{"QMP":{"version":{"qemu":{"major":"10","minor":0,"micro":0}}}}\r\n',
      "qmp-unexpected-shape",
    ],
    ["something that is not QMP", "SSH-2.0-x\r\n", "qmp-malformed"],
    [
      "an event before the greeting",
      '{"event":"STOP","timestamp":{"seconds":1,"microseconds":1}}\r\n',
      "qmp-protocol",
    ],
    ["a reply before the greeting", '{"return":{},"id":"x"}\r\n', "qmp-protocol"],
  ])("refuses %s", async (_, greeting, code) => {
    peer.greeting = greeting;
    await expect(connect()).rejects.toMatchObject({ code });
  });

  it("is not disturbed by a reply that an earlier session was owed", async () => {
    const stale = { return: [], id: "vmferry-00000000000000aa-5" };
    peer.greeting = JSON.stringify(GREETING) + "\r\n" + JSON.stringify(stale) + "\r\n";
    const client = await connect();
    peer.onCommand = reply;
    expect(await client.execute("query-status")).toEqual(RUNNING);
  });
});

describe("QmpClient.execute", () => {
  it("sends the arguments and routes replies by id, in whatever order they come", async () => {
    const client = await connect();
    const status = client.execute("query-status");
    const name = client.execute("query-name");
    const migrate = client.execute("migrate", { uri: 'unix:/run/"},{"execute":"quit' });
    await expect.poll(() => peer.commands.length, { timeout: 5000 }).toBe(4);
    const [, first, second, third] = peer.commands;
    expect(third).toMatchObject({ arguments: { uri: 'unix:/run/"},{"execute":"quit' } });
    reply(third!, {});
    reply(second!, { name: "web1" });
    reply(first!);
    expect(await Promise.all([status, name, migrate])).toEqual([RUNNING, "web1", undefined]);
    expect(new Set(peer.commands.map(({ id }) => id)).size).toBe(4);
  });

  it("reads a reply that arrives byte by byte", async () => {
    const client = await connect();
    peer.onCommand = ({ id }) => {
      peer.socket.setNoDelay(true);
      const bytes = Buffer.from(JSON.stringify({ return: RUNNING, id }) + "\r\n");
      const sendFrom = (at: number): void => {
        if (at === bytes.length) return;
        peer.socket.write(bytes.subarray(at, at + 1), () => {
          sendFrom(at + 1);
        });
      };
      sendFrom(0);
    };
    expect(await client.execute("query-status")).toEqual(RUNNING);
  });

  it("tells the class and the text of an error, and goes on", async () => {
    const client = await connect();
    peer.onCommand = ({ id, execute }) => {
      if (execute === "cont") peer.send({ error: { class: "GenericError", desc: "no" }, id });
      else peer.send({ return: RUNNING, id });
    };
    await expect(client.execute("cont")).rejects.toMatchObject({
      detail: {
        code: "qmp-command-failed",
        command: "cont",
        errorClass: "GenericError",
        description: "no",
      },
    });
    expect(await client.execute("query-status")).toEqual(RUNNING);
  });

  it("drops a late reply and does not take it for the next one", async () => {
    const client = await connect();
    const late = client.execute("query-status", undefined, { timeoutMs: 20 });
    await expect(late).rejects.toMatchObject({
      detail: { code: "qmp-timeout", waitingFor: "query-status", timeoutMs: 20 },
    });
    const next = client.execute("query-status");
    await expect.poll(() => peer.commands.length, { timeout: 5000 }).toBe(3);
    reply(peer.commands[1]!, { status: "paused", running: false });
    reply(peer.commands[2]!);
    expect(await next).toEqual(RUNNING);
    expect(client.isOpen).toBe(true);
  });

  it("ends nothing but the command when a reply has an unexpected shape", async () => {
    const client = await connect();
    let value: unknown = { status: "on fire", running: true };
    peer.onCommand = (command) => {
      reply(command, value);
    };
    await expect(client.execute("query-status")).rejects.toMatchObject({
      code: "qmp-unexpected-shape",
    });
    value = RUNNING;
    expect(await client.execute("query-status")).toEqual(RUNNING);
  });

  it("sends nothing that is not allowed", async () => {
    const client = await connect();
    const command = "human-monitor-command" as "query-status";
    await expect(client.execute(command)).rejects.toMatchObject({
      code: "qmp-command-not-allowed",
    });
    await expect(client.execute("migrate", { uri: "exec:cat" })).rejects.toMatchObject({
      code: "qmp-arguments-not-allowed",
    });
    expect(peer.commands).toHaveLength(1);
  });

  it("bounds the commands that QEMU owes a reply, those that were given up included", async () => {
    const client = await connect();
    const given = Array.from({ length: 64 }, (_, n) =>
      client.execute("query-status", undefined, { timeoutMs: n < 32 ? 1 : 5000 }),
    );
    await Promise.allSettled(given.slice(0, 32));
    await expect.poll(() => peer.commands.length, { timeout: 5000 }).toBe(65);
    await expect(client.execute("query-status")).rejects.toMatchObject({
      code: "qmp-too-many-pending",
    });
    peer.commands.slice(1).forEach((command) => {
      reply(command);
    });
    await Promise.all(given.slice(32));
    peer.onCommand = reply;
    expect(await client.execute("query-status")).toEqual(RUNNING);
  });

  it("fails every pending command, and each later one, when QEMU closes the connection", async () => {
    const client = await connect();
    const pending = [client.execute("query-status"), client.execute("stop")];
    await expect.poll(() => peer.commands.length, { timeout: 5000 }).toBe(3);
    peer.sendRaw('{"return":{"status":"run');
    peer.socket.end();
    for (const command of pending) {
      await expect(command).rejects.toMatchObject({ code: "qmp-closed" });
    }
    await expect(client.execute("cont")).rejects.toMatchObject({
      detail: { code: "qmp-closed", waitingFor: "cont" },
    });
    expect(await client.closed).toEqual({ kind: "closed-by-qemu" });
    expect(client.isOpen).toBe(false);
  });

  it("fails what is pending when it is closed here, and closing twice is harmless", async () => {
    const client = await connect();
    const pending = client.execute("query-status");
    const event = client.waitFor(() => true, { timeoutMs: 5000 });
    await Promise.all([client.close(), client.close()]);
    await expect(pending).rejects.toMatchObject({ code: "qmp-closed" });
    await expect(event).rejects.toMatchObject({ code: "qmp-closed" });
    await expect(client.waitFor(() => true, { timeoutMs: 5000 })).rejects.toMatchObject({
      code: "qmp-closed",
    });
    expect(await client.closed).toEqual({ kind: "closed-here" });
  });
});

describe("events", () => {
  it("go to each listener in order until it leaves", async () => {
    const client = await connect();
    const first: QmpEvent[] = [];
    const second: string[] = [];
    const leave = client.onEvent((event) => {
      first.push(event);
      if (event.name === "RESUME") leave();
    });
    client.onEvent(({ name }) => second.push(name));
    peer.sendEvent("STOP");
    peer.sendEvent("RESUME", { a: 1 });
    peer.sendEvent("STOP");
    await expect.poll(() => second, { timeout: 5000 }).toEqual(["STOP", "RESUME", "STOP"]);
    expect(first).toEqual([
      { name: "STOP", data: {}, seconds: 12, microseconds: 34 },
      { name: "RESUME", data: { a: 1 }, seconds: 12, microseconds: 34 },
    ]);
  });

  it("are not missed between waitFor and the command that causes them", async () => {
    const client = await connect();
    peer.onCommand = (command) => {
      peer.sendEvent("MIGRATION", { status: "active" });
      peer.sendEvent("MIGRATION", { status: "completed" });
      reply(command, {});
    };
    const completed = client.waitFor((event) => migrationStatusOf(event) === "completed", {
      timeoutMs: 5000,
    });
    await client.execute("migrate", { uri: "unix:/run/m.sock" });
    expect((await completed).data).toEqual({ status: "completed" });
  });

  it("are waited for no longer than the time-out or the signal allows", async () => {
    const client = await connect();
    await expect(client.waitFor(() => true, { timeoutMs: 20 })).rejects.toMatchObject({
      detail: { code: "qmp-timeout", waitingFor: "event", timeoutMs: 20 },
    });
    const reason = new Error("enough");
    const controller = new AbortController();
    const waiting = client.waitFor(() => true, { timeoutMs: 5000, signal: controller.signal });
    controller.abort(reason);
    await expect(waiting).rejects.toBe(reason);
    const { signal } = controller;
    await expect(client.waitFor(() => true, { timeoutMs: 5000, signal })).rejects.toBe(reason);
  });

  it("fail only the wait whose predicate throws", async () => {
    const client = await connect();
    const mistake = new Error("mistake");
    const failing = client.waitFor(
      () => {
        throw mistake;
      },
      { timeoutMs: 5000 },
    );
    const sound = client.waitFor(({ name }) => name === "STOP", { timeoutMs: 5000 });
    peer.sendEvent("STOP");
    await expect(failing).rejects.toBe(mistake);
    expect(await sound).toMatchObject({ name: "STOP" });
  });
});
