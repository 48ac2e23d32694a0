import { mkdtemp, rm } from "node:fs/promises";
import { createServer, type Server, type Socket } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { systemClock } from "@vmferry/core";
import {
  COMMAND,
  encodePong,
  encodeRecvBitmap,
  encodeReqPages,
  encodeResumeAck,
  encodeShut,
  PAGE_BYTES,
  PreemptDecoder,
  QmpError,
  StreamDecoder,
  type OobSession,
} from "@vmferry/qemu";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { recoverQemu, type RecoverQemuOptions } from "./recover-qemu.ts";

const SECTION = {
  sectionId: 3,
  blocks: [
    { name: "pc.ram", lengthBytes: 100 * PAGE_BYTES },
    { name: "pc.rom", lengthBytes: 4 * PAGE_BYTES },
  ],
};

/** What QEMU answers to a command of the source. */
type Answers = (socket: Socket, command: number, payload: Buffer) => void;

let directory: string;
let servers: Server[];
let sockets: Socket[];
/** What `migrate-recover` is told, in this order; then it listens. */
let refusals: string[];
let status: string;
let answers: Answers;
let placed: string[];
/** Connections that it had whenever it was asked what it says at once. */
let turns: number[];
/** By its second connection. */
let urgent: string[];
let hasEnded: boolean;

beforeEach(async () => {
  directory = await mkdtemp(join(tmpdir(), "vmferry-recover-"));
  servers = [];
  sockets = [];
  refusals = [];
  status = "postcopy-paused";
  placed = [];
  urgent = [];
  turns = [];
  hasEnded = false;
  answers = honest;
});

afterEach(async () => {
  for (const socket of sockets) socket.destroy();
  for (const server of servers) server.close();
  await rm(directory, { recursive: true });
});

/** It has the first 98 pages of RAM and none of the ROM. */
const honest: Answers = (socket, command, payload) => {
  if (command === COMMAND.POSTCOPY_RESUME) socket.write(encodeResumeAck(1));
  else socket.write(bitmapOf(payload.toString("latin1", 1)));
};

function bitmapOf(name: string): Buffer {
  const bitmap = Buffer.alloc(name === "pc.ram" ? 16 : 8);
  if (name === "pc.ram") bitmap.fill(0xff, 0, 12).writeUInt8(0x03, 12);
  return encodeRecvBitmap(name, bitmap);
}

async function listen(path: string): Promise<void> {
  const server = createServer((socket) => {
    sockets.push(socket);
    socket.on("error", () => undefined);
    if (sockets.length === 2) {
      const take = (block: number, page: number): number => urgent.push(`${block}:${page}`);
      const requested = new PreemptDecoder(SECTION.blocks, { page: take, zeroPage: take });
      socket.on("data", (chunk: Buffer) => {
        requested.push(chunk);
      });
      return;
    }
    const decoder = new StreamDecoder(
      {
        verbatim: () => undefined,
        command: (command, payload) => {
          answers(socket, command, Buffer.from(payload));
        },
        ramStart: () => undefined,
        partEnd: () => undefined,
        ramEnd: () => (hasEnded = true),
        page: (block, page) => placed.push(`${block}:${page}`),
        zeroPage: (block, page) => placed.push(`${block}:${page}`),
        deviceState: () => socket.write(encodeShut(0)),
      },
      {},
      SECTION,
    );
    socket.on("data", (chunk: Buffer) => {
      decoder.push(chunk);
    });
  });
  servers.push(server);
  await new Promise<void>((resolve) => server.listen(path, resolve));
}

const oob = {
  executeOob: async (command: string, given: { readonly uri: string } | undefined) => {
    if (command === "query-yank") {
      turns.push(sockets.length);
      return undefined;
    }
    const { uri } = given!;
    const description = refusals.shift();
    if (description === undefined) return listen(uri.slice("unix:".length));
    const detail = { command: "migrate-recover", errorClass: "GenericError", description };
    throw new QmpError(description, { code: "qmp-command-failed", ...detail });
  },
} as unknown as OobSession;
const qmp = {
  execute: () => Promise.resolve({ status }),
} as unknown as RecoverQemuOptions["qmp"];

function recover(hasUrgentChannel = false): ReturnType<typeof recoverQemu> {
  const socketPath = join(directory, "again.in");
  const options = { socketPath, section: SECTION, hasUrgentChannel };
  return recoverQemu({ oob, qmp, clock: systemClock, ...options });
}

describe("a QEMU that was left in post-copy", () => {
  it("tells what it lacks, takes it, and says when it has everything", async () => {
    const fetching = await recover();
    const { placer } = fetching!;
    expect([...placer.missing.runs(100)]).toEqual([
      { block: 0, first: 98, count: 2 },
      { block: 1, first: 0, count: 4 },
    ]);
    for (const page of [98, 99]) placer.page(0, page, Buffer.alloc(PAGE_BYTES, 1), 0);
    for (const page of [0, 1, 2, 3]) placer.zeroPage(1, page);
    await placer.end();
    expect(placed.toSorted()).toEqual(["0:98", "0:99", "1:0", "1:1", "1:2", "1:3"]);
    expect(hasEnded).toBe(true);
    expect(placer.digest()).toBeNull();
    await fetching!.close();
  });

  it("asks again for what it waits for, as soon as it goes on", async () => {
    answers = (socket, command, payload) => {
      honest(socket, command, payload);
      if (command !== COMMAND.POSTCOPY_RESUME) return;
      const pages = { startBytes: 98 * PAGE_BYTES, lengthBytes: PAGE_BYTES };
      socket.write(encodeReqPages({ block: "pc.ram", ...pages }));
    };
    const { requests } = (await recover())!;
    await expect
      .poll(() => requests.outstanding())
      .toEqual([{ block: 0, firstPage: 98, pageCount: 1 }]);
  });

  it("gets what it has asked for by its urgent channel, which it has before it goes on", async () => {
    const seen: number[] = [];
    answers = (socket, command, payload) => {
      if (command === COMMAND.POSTCOPY_RESUME) {
        seen.push(sockets.length);
        const pages = { startBytes: 98 * PAGE_BYTES, lengthBytes: PAGE_BYTES };
        socket.write(encodeReqPages({ block: "pc.ram", ...pages }));
      }
      honest(socket, command, payload);
    };
    const { placer, requests } = (await recover(true))!;
    await expect.poll(() => requests.outstanding().length).toBe(1);
    for (const page of [98, 99]) placer.page(0, page, Buffer.alloc(PAGE_BYTES, 1), 0);
    await placer.flush();
    await expect.poll(() => [urgent, placed]).toEqual([["0:98"], ["0:99"]]);
    expect(seen).toEqual([2]);
    expect(turns.at(-1)).toBe(2);
    sockets[0]!.destroy();
    await expect.poll(() => sockets[1]!.destroyed || sockets[1]!.readableEnded).toBe(true);
  });

  it("is not told to go on where its urgent channel cannot be had, and can be taken up again", async () => {
    let resumed = false;
    answers = (socket, command, payload) => {
      if (command === COMMAND.POSTCOPY_RESUME) resumed = true;
      honest(socket, command, payload);
      for (const server of servers.splice(0)) server.close();
      void rm(join(directory, "again.in"), { force: true });
    };
    await expect(recover(true)).rejects.toMatchObject({ code: "post-copy-not-recovered" });
    expect(resumed).toBe(false);
  });

  it("is asked again until it has noticed that it was left", async () => {
    refusals = ["Migrate recover can only be run when postcopy is paused.", "again"];
    status = "postcopy-active";
    expect(await recover()).not.toBeNull();
  });

  it("is left alone where its load has come to its end", async () => {
    refusals = ["Migrate recover can only be run when postcopy is paused."];
    status = "completed";
    expect(await recover()).toBeNull();
  });

  it("is given up where its load has failed", async () => {
    refusals = ["Migrate recover can only be run when postcopy is paused."];
    status = "failed";
    await expect(recover()).rejects.toMatchObject({ code: "post-copy-not-recovered" });
  });

  it("tells when it goes away later", async () => {
    const { shut, placer } = (await recover())!;
    for (const socket of sockets) socket.destroy();
    await expect(shut).rejects.toMatchObject({ code: "post-copy-not-recovered" });
    for (const { block, first, count } of placer.missing.runs(100)) {
      for (let page = first; page < first + count; page++) placer.zeroPage(block, page);
    }
    await expect(placer.end()).rejects.toThrow();
  });

  it.each<[string, Answers]>([
    ["goes away in the middle", (socket) => socket.destroy()],
    [
      "sends a bitmap of another length",
      (socket, _command, payload) => {
        socket.write(encodeRecvBitmap(payload.toString("latin1", 1), Buffer.alloc(32)));
      },
    ],
    [
      "does not go on",
      (socket, command, payload) => {
        if (command === COMMAND.POSTCOPY_RESUME) socket.write(encodeResumeAck(0));
        else honest(socket, command, payload);
      },
    ],
    ["says that it failed", (socket) => socket.write(encodeShut(1))],
    ["says something that is no message", (socket) => socket.write(Buffer.alloc(20, 0xff))],
  ])("is refused when it %s", async (_what, wrong) => {
    answers = wrong;
    await expect(recover()).rejects.toThrow();
  });

  it("may say other things meanwhile", async () => {
    answers = (socket, command, payload) => {
      socket.write(encodePong(4));
      honest(socket, command, payload);
    };
    expect(await recover()).not.toBeNull();
  });
});
