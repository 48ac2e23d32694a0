import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { QmpClient } from "./qmp-client.ts";
import { GREETING, ScriptedQmpPeer, type SentCommand } from "./scripted-qmp-peer.ts";

const RUNNING = { running: true, status: "running" };
const URI = { uri: "unix:/run/again.sock" };

let peer: ScriptedQmpPeer;
let client: QmpClient;

function reply({ id }: Pick<SentCommand, "id">, value: unknown = RUNNING): void {
  peer.send({ return: value, id });
}

beforeEach(async () => {
  peer = await ScriptedQmpPeer.listen();
  peer.greeting = JSON.stringify({ QMP: { ...GREETING.QMP, capabilities: ["oob"] } }) + "\r\n";
});

afterEach(async () => {
  await client.close();
  await peer.close();
});

async function connect(commandTimeoutMs = 5000): Promise<void> {
  client = await QmpClient.connect({ path: peer.path, timeoutMs: 5000, commandTimeoutMs });
}

async function received(count: number): Promise<void> {
  await expect.poll(() => peer.commands.length, { timeout: 5000 }).toBe(count);
}

describe("a session with commands out of band", () => {
  it("agrees on them where QEMU offers them", async () => {
    await connect();
    expect(peer.commands[0]).toMatchObject({
      execute: "qmp_capabilities",
      arguments: { enable: ["oob"] },
    });
  });

  it("refuses them where QEMU did not offer them", async () => {
    peer.greeting = JSON.stringify(GREETING) + "\r\n";
    await connect();
    expect(peer.commands[0]!.arguments).toEqual({});
    await expect(client.executeOob("migrate-recover", URI)).rejects.toMatchObject({
      detail: { code: "qmp-no-oob", command: "migrate-recover" },
    });
  });

  it("sends one past commands that QEMU does not answer, however many there are", async () => {
    await connect();
    const statuses = Array.from({ length: 20 }, () => client.execute("query-status"));
    const recovered = client.executeOob("migrate-recover", URI);
    await received(1 + 8 + 1);
    const oob = peer.commands.at(-1)!;
    expect(oob).toMatchObject({ "exec-oob": "migrate-recover", arguments: URI });
    reply(oob, {});
    await recovered;
    peer.onCommand = reply;
    for (const command of peer.commands.slice(1, 9)) reply(command);
    expect(await Promise.all(statuses)).toEqual(Array.from({ length: 20 }, () => RUNNING));
  });

  it("never sends a command that was given up before QEMU had room for it", async () => {
    await connect(50);
    const statuses = Array.from({ length: 9 }, () => client.execute("query-status"));
    const name = client.execute("query-name", undefined, { timeoutMs: 5000 });
    const outcomes = await Promise.allSettled(statuses);
    expect(outcomes.every(({ status }) => status === "rejected")).toBe(true);
    await received(1 + 8);
    for (const command of peer.commands.slice(1)) reply(command);
    await received(1 + 8 + 1);
    expect(peer.commands.at(-1)).toMatchObject({ execute: "query-name" });
    reply(peer.commands.at(-1)!, { name: "web1" });
    expect(await name).toBe("web1");
  });

  it("keeps to the allow-list there as well", async () => {
    await connect();
    await expect(
      client.executeOob("migrate-recover", { uri: "exec:rm -rf /" }),
    ).rejects.toMatchObject({ code: "qmp-arguments-not-allowed" });
  });
});
