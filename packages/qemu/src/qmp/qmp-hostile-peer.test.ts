import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { QmpClient } from "./qmp-client.ts";
import { ScriptedQmpPeer } from "./scripted-qmp-peer.ts";

let peer: ScriptedQmpPeer;
let client: QmpClient;

beforeEach(async () => {
  peer = await ScriptedQmpPeer.listen();
  client = await QmpClient.connect({ path: peer.path, timeoutMs: 5000 });
});

afterEach(async () => {
  await client.close();
  await peer.close();
});

/** The session has to end with this code, and so has the command that was pending. */
async function expectSessionToEndWith(code: string, act: () => void): Promise<void> {
  const pending = client.execute("query-status");
  await expect.poll(() => peer.commands.length, { timeout: 5000 }).toBe(2);
  act();
  await expect(pending).rejects.toMatchObject({ code });
  expect(await client.closed).toMatchObject({ kind: "failed", error: { code } });
  await expect(client.execute("query-status")).rejects.toMatchObject({
    code: "qmp-closed",
    cause: { code },
  });
}

describe("a session with a QEMU that does not keep to the protocol", () => {
  it.each([
    ["garbage", "\x00\x01garbage\r\n", "qmp-malformed"],
    ["an object of no kind", "{}\r\n", "qmp-protocol"],
    ["a reply to a command that was not sent", '{"return":{},"id":"x"}\r\n', "qmp-protocol"],
    ["a reply whose id is a number", '{"return":{},"id":1}\r\n', "qmp-protocol"],
    ["a reply without id", '{"return":{}}\r\n', "qmp-protocol"],
    [
      "an error without id",
      '{"error":{"class":"GenericError","desc":"JSON parse error"}}\r\n',
      "qmp-protocol",
    ],
    ["an error that is a text", '{"error":"no","id":"x"}\r\n', "qmp-unexpected-shape"],
    ["an event without timestamp", '{"event":"STOP"}\r\n', "qmp-protocol"],
    [
      "an event whose data are a list",
      '{"event":"STOP","data":[],"timestamp":{"seconds":1,"microseconds":1}}\r\n',
      "qmp-protocol",
    ],
    [
      "a second greeting",
      '{"QMP":{"version":{"qemu":{"major":1,"minor":0,"micro":0}}}}\r\n',
      "qmp-protocol",
    ],
  ])("ends on %s", async (_, line, code) => {
    await expectSessionToEndWith(code, () => {
      peer.sendRaw(line);
    });
  });

  it("ends on a second reply to the same command", async () => {
    peer.onCommand = ({ id }) => {
      peer.send({ return: { name: "web1" }, id });
      peer.send({ return: { name: "web2" }, id });
    };
    expect(await client.execute("query-name")).toBe("web1");
    expect(await client.closed).toMatchObject({ error: { code: "qmp-protocol" } });
  });

  it("ends on a reply with the session's own mark to a command that was not sent", async () => {
    await expectSessionToEndWith("qmp-protocol", () => {
      peer.send({ return: {}, id: peer.commands[1]!.id.replace(/\d+$/, "99") });
    });
  });

  it("ends on a line of 10 MB", async () => {
    await expectSessionToEndWith("qmp-line-too-long", () => {
      peer.sendRaw(Buffer.alloc(10_000_000, 0x20));
    });
  });

  it("delivers nothing that follows the fault in the same chunk", async () => {
    const names: string[] = [];
    client.onEvent(({ name }) => names.push(name));
    const event = (event: string): string =>
      JSON.stringify({ event, timestamp: { seconds: 1, microseconds: 1 } }) + "\r\n";
    peer.sendRaw(event("STOP") + "x\r\n" + event("RESUME"));
    expect(await client.closed).toMatchObject({ error: { code: "qmp-malformed" } });
    expect(names).toEqual(["STOP"]);
  });

  it("delivers nothing after a listener has closed it", async () => {
    const names: string[] = [];
    client.onEvent(({ name }) => {
      names.push(name);
      void client.close();
    });
    peer.sendEvent("STOP");
    peer.sendEvent("RESUME");
    expect(await client.closed).toEqual({ kind: "closed-here" });
    await client.close();
    expect(names).toEqual(["STOP"]);
  });

  it("ends when a listener throws, rather than going on half told", async () => {
    const mistake = new Error("mistake");
    client.onEvent(() => {
      throw mistake;
    });
    peer.sendEvent("STOP");
    expect(await client.closed).toMatchObject({
      error: { code: "qmp-listener-failed", cause: mistake },
    });
  });

  it("answers commands in the middle of a storm of 100,000 events", async () => {
    let events = 0;
    client.onEvent(() => {
      events += 1;
    });
    const storm = JSON.stringify({
      event: "BLOCK_IO_ERROR",
      data: { reason: "x".repeat(50) },
      timestamp: { seconds: 1, microseconds: 1 },
    });
    const lines = Buffer.from(`${storm}\r\n`.repeat(50_000));
    peer.onCommand = ({ id }) => {
      peer.send({ return: { name: "web1" }, id });
      peer.sendRaw(lines);
    };
    peer.sendRaw(lines);
    expect(await client.execute("query-name")).toBe("web1");
    expect(events).toBeGreaterThanOrEqual(50_000);
    await expect.poll(() => events, { timeout: 10_000 }).toBe(100_000);
    expect(client.isOpen).toBe(true);
  });
});
