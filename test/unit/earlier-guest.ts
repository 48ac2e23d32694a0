// What an earlier life of an agent has left on its disk of one guest, with a QEMU that is gone or
// that lives and answers nothing, that waits for a guest, or that answers as a test has it.

import { spawn, type ChildProcess } from "node:child_process";
import { once } from "node:events";
import { existsSync, readFileSync } from "node:fs";
import { mkdir, mkdtemp, rm } from "node:fs/promises";
import { createServer, type Server, type Socket } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { createInterface } from "node:readline";
import { createImage } from "@vmferry/block";
import { assert, systemClock } from "@vmferry/core";
import { fillGuestDefinition, type MigrationRole } from "@vmferry/protocol";
import {
  createLogger,
  EventHub,
  GuestRegistry,
  JournalShelf,
  markImagesLeft,
  MigrationStore,
  type DiskRecoveryPort,
  type GuestRecord,
} from "../../packages/agent/src/index.ts";
import { writeGuestRecord } from "../../packages/agent/src/guests/guest-record.ts";

const IMAGE_BYTES = 1024 * 1024;
export const GUEST = "web1";
export const UUID = "6ba7b810-9dad-41d1-80b4-00c04fd430c8";
export const STUN = {
  migrationId: "9f0c1e5a-3b7d-4c2e-8a61-5d4f3e2b1a09",
  epoch: 2,
  generation: 1,
};
export const PEER = "00000000-1111-4222-8333-444444444444";

/** What a QEMU says to a command, and what it tells of itself with that. */
export interface Monitor {
  answer(
    command: string,
  ): Promise<
    { readonly return: unknown; readonly event: string | null } | { readonly fails: string }
  >;
}

export interface GuestFiles {
  /** The guest's own. */
  readonly directory: string;
  readonly imagePath: string;
}

export interface EarlierOptions {
  /** The kinds of the journal's records; none = no journal. */
  readonly records?: readonly string[];
  readonly image?: "plain" | "filling" | "whole" | "left";
  /**
   * `prepared`: it was attached, answers, and waits for a guest that nobody has offered. `relayed`:
   * the same, but it is another process that answers as a QEMU elsewhere does.
   */
  readonly qemu: "silent" | "gone" | "prepared" | "relayed" | ((paths: GuestFiles) => Monitor);
  readonly diskRecovery?: DiskRecoveryPort;
}

interface StartedQemu {
  readonly child: ChildProcess;
  /** Null where the process itself serves the socket. */
  readonly server: Server | null;
}

/** Its arguments: where it listens, and whose the threads of processors are that it tells. */
const PREPARED = `
const greeting = { QMP: { version: { qemu: { micro: 2, minor: 0, major: 10 }, package: "" }, capabilities: ["oob"] } };
const [path, owner] = process.argv.slice(1);
const threads = require("node:fs").readdirSync("/proc/" + owner + "/task").map(Number);
const thread = threads.find((id) => id !== process.pid);
const answers = {
  "query-status": { status: "inmigrate", running: false },
  "query-cpus-fast": [{ "cpu-index": 0, "thread-id": thread, "qom-path": "/machine/cpu0" }],
};
require("node:net").createServer((socket) => {
  socket.on("error", () => undefined);
  socket.write(JSON.stringify(greeting) + "\\r\\n");
  require("node:readline").createInterface(socket).on("line", (line) => {
    const { execute, id } = JSON.parse(line);
    socket.write(JSON.stringify({ return: answers[execute] ?? {}, id }) + "\\r\\n");
  });
}).listen(path, () => process.stdout.write("listening"));
`;

export class EarlierGuest<R extends MigrationRole> {
  readonly imageDir: string;
  readonly registry: GuestRegistry;
  readonly store: MigrationStore;
  readonly journals: JournalShelf<R>;
  readonly logger = createLogger({ role: "source", level: "silent" });
  readonly clock = systemClock;
  readonly directory: string;
  readonly #root: string;
  readonly #qemu: StartedQemu | null;

  private constructor(parts: {
    readonly root: string;
    readonly directory: string;
    readonly journals: JournalShelf<R>;
    readonly started: StartedQemu | null;
    readonly diskRecovery: DiskRecoveryPort | undefined;
  }) {
    const { root, directory, journals, started, diskRecovery } = parts;
    this.#root = root;
    this.directory = directory;
    this.#qemu = started;
    this.journals = journals;
    this.imageDir = join(root, "images");
    const hub = new EventHub({ clock: systemClock });
    this.store = new MigrationStore({ hub, clock: systemClock });
    this.registry = new GuestRegistry({
      ...{ qemu: "qemu", stateDir: join(root, "state"), imageDir: this.imageDir },
      ...{ guestMemoryBytesMax: null, lookMsMax: 300, hub, logger: this.logger },
      ...(diskRecovery === undefined ? {} : { diskRecovery }),
    });
  }

  static async make<R extends MigrationRole>(
    role: R,
    { records = [], image = "plain", qemu, diskRecovery }: EarlierOptions,
  ): Promise<EarlierGuest<R>> {
    const root = await mkdtemp(join(tmpdir(), "vmferry-earlier-"));
    const stateDir = join(root, "state");
    const directory = join(stateDir, "guests", GUEST);
    await mkdir(directory, { recursive: true });
    await mkdir(join(root, "images"));
    await makeImage(join(root, "images"), image);
    const qmpPath = join(directory, "qmp.sock");
    const imagePath = join(root, "images", "web1.raw");
    const starts = {
      silent: startSilent,
      prepared: (path: string) => startPrepared(path, "self"),
      relayed: (path: string) => startPrepared(path, String(process.pid)),
      gone: () => null,
    };
    const start =
      typeof qemu === "function"
        ? (path: string) => startAnswering(path, qemu({ directory, imagePath }))
        : starts[qemu];
    const started = await start(qmpPath);
    const pid = started?.child.pid ?? 4_194_303;
    const startTicks = started === null ? 1 : startTicksOf(pid);
    const record = recordOf(role, { pid, startTicks, qmpPath });
    const isAttached = qemu === "prepared" || qemu === "relayed";
    await writeGuestRecord(directory, isAttached ? preparedOf(record, qmpPath) : record);
    const journals = await JournalShelf.open(role, stateDir);
    if (records.length > 0) await writeJournal(role, journals, records);
    return new EarlierGuest({ root, directory, journals, started, diskRecovery });
  }

  get imagePath(): string {
    return join(this.imageDir, "web1.raw");
  }

  get imageIsThere(): boolean {
    return existsSync(this.imagePath);
  }

  get qemuLives(): boolean {
    const child = this.#qemu?.child;
    return child !== undefined && child.exitCode === null && child.signalCode === null;
  }

  async killQemu(): Promise<void> {
    assert(this.#qemu !== null, "there is a QEMU to kill");
    const { child } = this.#qemu;
    const exited = once(child, "exit");
    child.kill("SIGKILL");
    await exited;
  }

  async end(): Promise<void> {
    await this.registry.detach();
    if (this.qemuLives) await this.killQemu();
    this.#qemu?.server?.close();
    await rm(this.#root, { recursive: true });
  }
}

function recordOf(role: MigrationRole, identity: GuestRecord["identity"]): GuestRecord {
  const definition = fillGuestDefinition({
    ...{ name: GUEST, machine: "pc-q35-10.0", memoryBytes: 2 ** 27, boot: { kernel: "vmlinuz" } },
    disks: [{ id: "disk0", image: "web1.raw" }],
  });
  const base = { definition, accel: "tcg", uuid: UUID, qemuVersion: "10.0.2", identity } as const;
  return role === "source"
    ? { ...base, epoch: 1, stage: "owned" }
    : { ...base, epoch: 2, stage: "incoming" };
}

function preparedOf(record: GuestRecord, qmp: string): GuestRecord {
  const attachment = { qmp, launchRefusal: "", diskBytes: { disk0: IMAGE_BYTES } };
  return { ...record, epoch: 0, stage: "prepared", attachment };
}

async function writeJournal<R extends MigrationRole>(
  role: R,
  journals: JournalShelf<R>,
  kinds: readonly string[],
): Promise<void> {
  const journal = await journals.take({ guest: GUEST, uuid: UUID });
  const digest = "0123456789abcdef".repeat(4);
  for (const kind of kinds) {
    const peerIncarnation = kind === "begin" ? null : PEER;
    const peer = role === "source" ? { peer: "host-b" } : {};
    const found = kind === "prepared" || kind === "handed-off" ? { digest } : {};
    const why = kind === "reclaimed" ? { reason: "peer-refused" } : {};
    await journal.append({ kind, ...STUN, ...peer, peerIncarnation, ...found, ...why } as never);
  }
  await journal.close();
}

async function makeImage(
  directory: string,
  state: NonNullable<EarlierOptions["image"]>,
): Promise<void> {
  const { migrationId, epoch } = STUN;
  const { image, mark } = await createImage({
    ...{ directory, name: "web1.raw", sizeBytes: IMAGE_BYTES, needBytes: IMAGE_BYTES },
    mark: { blockBytes: 65_536, migrationId, epoch },
  });
  await image.write(0, Buffer.from("the only copy that is up to date"));
  await image.flush();
  await image.close();
  if (state === "whole") await mark.complete();
  if (state === "plain" || state === "left") await mark.remove();
  if (state !== "left") return;
  await markImagesLeft([{ path: image.path, sizeBytes: IMAGE_BYTES }], { migrationId, epoch: 1 });
}

/** A process that says that it serves the socket, and a socket on which nothing is ever said. */
function startSilent(qmpPath: string): Promise<StartedQemu> {
  return startServed(qmpPath, () => undefined);
}

/** As `startSilent`; its monitor is here. */
function startAnswering(qmpPath: string, monitor: Monitor): Promise<StartedQemu> {
  return startServed(qmpPath, (socket) => {
    const send = (message: object): void => {
      socket.write(`${JSON.stringify(message)}\r\n`);
    };
    socket.on("error", () => undefined);
    const qemu = { major: 10, minor: 0, micro: 2 };
    send({ QMP: { version: { qemu, package: "" }, capabilities: ["oob"] } });
    const answer = async (line: string): Promise<void> => {
      const { execute, id } = JSON.parse(line) as { execute: string; id: unknown };
      const said = await monitor.answer(execute);
      if ("fails" in said) {
        send({ error: { class: "GenericError", desc: said.fails }, id });
        return;
      }
      const timestamp = { seconds: 0, microseconds: 0 };
      if (said.event !== null) send({ event: said.event, timestamp });
      send({ return: said.return, id });
    };
    createInterface(socket).on("line", (line) => void answer(line));
  });
}

async function startServed(qmpPath: string, serve: (socket: Socket) => void): Promise<StartedQemu> {
  const server = createServer(serve);
  server.listen(qmpPath);
  await once(server, "listening");
  const child = spawn("sleep", ["300"], { argv0: `chardev path=${qmpPath},server=on` });
  await once(child, "spawn");
  return { child, server };
}

async function startPrepared(qmpPath: string, owner: string): Promise<StartedQemu> {
  const child = spawn(process.execPath, ["-e", PREPARED, qmpPath, owner], {
    stdio: ["ignore", "pipe", "inherit"],
  });
  await once(child.stdout, "data");
  return { child, server: null };
}

function startTicksOf(pid: number): number {
  const stat = readFileSync(`/proc/${pid}/stat`, "utf8");
  return Number(stat.slice(stat.lastIndexOf(")") + 2).split(" ")[19]);
}
