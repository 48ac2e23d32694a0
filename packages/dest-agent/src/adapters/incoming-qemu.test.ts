import { mkdtemp, rm } from "node:fs/promises";
import { createServer, type Server, type Socket } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { systemClock } from "@vmferry/core";
import {
  encodePong,
  encodeReqPages,
  encodeShut,
  QmpError,
  type QmpClient,
  type ReturnPathMessage,
} from "@vmferry/qemu";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import type { ReqPages } from "../postcopy/page-requests.ts";
import { IncomingQemu } from "./incoming-qemu.ts";

const BLOCKS = [{ name: "pc.ram", lengthBytes: 2 ** 20 }];

let directory: string;
let server: Server;
let socket: Socket;
/** Everything that was said by QMP. */
let said: string[];
let canRecover: boolean;
/** What QEMU thinks of capabilities that it does not have. */
let refusals: Record<string, string>;
let version: { major: number; minor: number; micro: number };
let states: { migration: string; guest: string };
let forwarded: ReturnPathMessage[];
let requests: ReqPages[];

beforeEach(async () => {
  directory = await mkdtemp(join(tmpdir(), "vmferry-incoming-"));
  said = [];
  forwarded = [];
  requests = [];
  canRecover = true;
  refusals = {};
  version = { major: 10, minor: 0, micro: 2 };
  states = { migration: "active", guest: "inmigrate" };
});

afterEach(async () => {
  socket.destroy();
  server.close();
  await rm(directory, { recursive: true });
});

/** A QEMU that listens where it is told to. */
const qmp = {
  get version() {
    return version;
  },
  onEvent: () => () => undefined,
  execute: async (command: string, given?: object) => {
    said.push(`${command} ${JSON.stringify(given ?? {})}`);
    if (command === "query-migrate") return { status: states.migration, errorDescription: null };
    if (command === "query-status") return { status: states.guest, running: false };
    const refused = Object.entries(refusals).find(([name]) => said.at(-1)!.includes(name));
    if (refused !== undefined) {
      const [, refusal] = refused;
      const detail = { command, errorClass: "GenericError", description: refusal };
      throw new QmpError(`QEMU refused: ${refusal}`, { code: "qmp-command-failed", ...detail });
    }
    if (command === "migrate-incoming") await listen((given as { uri: string }).uri.slice(5));
    return undefined;
  },
} as unknown as QmpClient;

async function listen(path: string): Promise<void> {
  server = createServer((opened) => {
    socket = opened;
    socket.on("error", () => undefined);
    socket.resume();
  });
  await new Promise<void>((resolve) => server.listen(path, resolve));
}

async function open(postCopy: boolean): Promise<IncomingQemu> {
  const qemu = await IncomingQemu.open({
    qmp,
    clock: systemClock,
    socketPath: join(directory, "in"),
    postCopy,
    canRecover,
    blocks: () => BLOCKS,
    onReturnPath: (message) => forwarded.push(message),
  });
  qemu.onRequest = (message) => requests.push(message);
  return qemu;
}

const capability = (): boolean => said.some((text) => text.includes("postcopy-ram"));
const reqPages = encodeReqPages({ block: "pc.ram", startBytes: 4096, lengthBytes: 4096 });

describe("a QEMU that waits for a guest", () => {
  it("is told that memory may come later where that was offered, and only there", async () => {
    expect((await open(true)).postCopyRefusal).toBe("");
    expect(capability()).toBe(true);
    said = [];
    socket.destroy();
    server.close();
    expect((await open(false)).postCopyRefusal).toBe("");
    expect(capability()).toBe(false);
  });

  it("has a channel for what it asks for, where it has one and waits for what comes by it", async () => {
    const qemu = await open(true);
    expect(qemu.hasUrgentChannel).toBe(true);
    const first = socket;
    await qemu.openUrgentChannel()!.write(Buffer.from("page"), () => undefined);
    await expect.poll(() => socket === first).toBe(false);
    first.destroy();
    await expect.poll(() => socket.destroyed).toBe(true);
  });

  it.each([
    ["is older than 9.1", () => (version = { major: 9, minor: 0, micro: 2 })],
    ["refuses it", () => (refusals["postcopy-preempt"] = "no such capability")],
  ])("has no such channel where it %s", async (_what, arrange) => {
    arrange();
    const qemu = await open(true);
    expect([qemu.postCopyRefusal, qemu.hasUrgentChannel]).toEqual(["", false]);
    expect(qemu.openUrgentChannel()).toBeNull();
  });

  it("ends the load where that channel cannot be had", async () => {
    const qemu = await open(true);
    server.close();
    await rm(join(directory, "in"), { force: true });
    qemu.openUrgentChannel();
    await expect(qemu.packageLoaded()).rejects.toMatchObject({ code: "dest-load-failed" });
  });

  it("goes without where QEMU refuses it, and says why", async () => {
    refusals = { "postcopy-ram": "Userfaultfd not available" };
    expect((await open(true)).postCopyRefusal).toContain("Userfaultfd not available");
    expect(said.at(-1)).toContain("migrate-incoming");
  });

  it("goes without where QEMU could not be recovered while it waits for a page", async () => {
    canRecover = false;
    expect((await open(true)).postCopyRefusal).toContain("takes no commands");
    expect(capability()).toBe(false);
  });

  it("tells the source's QEMU only what belongs to an ordinary migration", async () => {
    const qemu = await open(true);
    socket.write(Buffer.concat([encodePong(1), reqPages, encodePong(3), encodeShut(0)]));
    await qemu.shut;
    expect(forwarded).toEqual([{ type: "pong", value: 1 }]);
    expect(requests).toMatchObject([{ block: "pc.ram", startBytes: 4096 }]);
  });

  it("has loaded its package when it has answered and stands still", async () => {
    const qemu = await open(true);
    const seen = { loaded: false };
    const loaded = qemu.packageLoaded().then(() => (seen.loaded = true));
    states.migration = "postcopy-active";
    socket.write(encodePong(3));
    await expect
      .poll(() => said.filter((text) => text.startsWith("query")).length)
      .toBeGreaterThan(3);
    expect(seen.loaded).toBe(false);
    states.guest = "paused";
    await loaded;
  });

  it("has not loaded its package when it gives up before", async () => {
    const qemu = await open(true);
    socket.destroy();
    await expect(qemu.packageLoaded()).rejects.toMatchObject({ code: "dest-load-failed" });
  });

  it("is not asked any more when it could run and takes no more pages", async () => {
    const qemu = await open(true);
    states = { migration: "postcopy-active", guest: "paused" };
    socket.write(encodePong(3));
    await qemu.packageLoaded();
    said = [];
    socket.destroy();
    await expect(qemu.shut).rejects.toMatchObject({ code: "dest-qemu-failed" });
    expect(said).toEqual([]);
  });
});
