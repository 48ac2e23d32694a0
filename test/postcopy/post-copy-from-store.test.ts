// An ordinary migration of the source's QEMU becomes a post-copy of the dest's: through the dest
// agent's own receivers, with a source that keeps what the dest lacks.

import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { systemClock } from "@vmferry/core";
import {
  adoptGuest,
  launchGuest,
  StandbyMonitor,
  type GuestDefinition,
  type GuestProcess,
  type MigrationStatus,
} from "@vmferry/qemu";
import { GUEST_CACHE, GuestConsole, judgeHandOver } from "@vmferry/testkit";
import { IncomingQemu } from "../../packages/dest-agent/src/adapters/incoming-qemu.ts";
import {
  recoverQemu,
  type RecoverQemuOptions,
} from "../../packages/dest-agent/src/adapters/recover-qemu.ts";
import { BulkReceiver } from "../../packages/dest-agent/src/bulk/bulk-receiver.ts";
import { openFetching, type Fetching } from "../../packages/dest-agent/src/postcopy/fetching.ts";
import { RamReceiver } from "../../packages/dest-agent/src/ram/ram-receiver.ts";
import { pause } from "../moving-guest.ts";
import { PostcopySender } from "../postcopy-sender.ts";

const WAIT_MS = 60_000;
const POLL_MS = 5;
const HASH_SEED = "00112233445566ff";
/** Of pre-copy, before the rest goes to the store. */
const PAGES_BEFORE_DRAIN = 20_000;
const CREDIT_BYTES = 2 ** 40;
const PAGES_AT_ONCE = 16;

const GUEST: GuestDefinition = {
  name: "postcopy",
  machine: "pc-q35-10.0",
  accel: "tcg",
  cpu: "qemu64",
  vcpus: 1,
  memoryBytes: 192 * 2 ** 20,
  boot: {
    kernel: "vmlinuz",
    initrd: "initrd.img",
    cmdline:
      "console=ttyS0 quiet panic=-1 tsc=unstable no_timer_check vmferry.mem=96M vmferry.rate=4000 vmferry.hot=50:10",
  },
  disks: [],
  serial: "file",
};

let directory: string;
const machines: Machine[] = [];
const closers: (() => unknown)[] = [];

beforeEach(async () => {
  directory = await mkdtemp(join(tmpdir(), "vmferry-store-"));
});

afterEach(async () => {
  for (const close of closers.splice(0)) await close();
  for (const { guest, console } of machines.splice(0)) {
    console.close();
    if (!guest.hasExited) await guest.kill();
  }
  await rm(directory, { recursive: true, force: true });
});

interface Machine {
  guest: GuestProcess;
  readonly console: GuestConsole;
}

async function start(name: string, incoming: boolean): Promise<Machine> {
  const guest = await launchGuest({
    binary: process.env["VMFERRY_QEMU"] ?? "qemu-system-x86_64",
    definition: GUEST,
    directory: join(directory, name),
    imageDirectory: GUEST_CACHE,
    incoming,
    timeoutMs: WAIT_MS,
  });
  const machine = {
    guest,
    console: GuestConsole.open(guest.paths.serialLog, { clock: systemClock }),
  };
  machines.push(machine);
  return machine;
}

async function until({ guest }: Machine, ...wanted: readonly MigrationStatus[]): Promise<void> {
  const deadline = performance.now() + WAIT_MS;
  for (;;) {
    const { status, errorDescription } = await guest.qmp.execute("query-migrate");
    if (wanted.includes(status)) return;
    const said = `migration is ${status}: ${errorDescription ?? "no reason"}`;
    if (performance.now() > deadline) throw new Error(`${said}; waited for ${wanted.join()}`);
    await pause(POLL_MS);
  }
}

async function statusOf({ guest }: Machine): Promise<string> {
  return (await guest.qmp.execute("query-status")).status;
}

/** A source with a busy guest in the middle of an ordinary migration, and a dest that may fetch. */
class Move {
  readonly source: Machine;
  readonly dest: Machine;
  readonly qemu: IncomingQemu;
  readonly ram: RamReceiver;
  readonly sender: PostcopySender;
  readonly running: Promise<void>;
  /** What the source's QEMU was told. */
  readonly pongs: number[] = [];

  private constructor(parts: Pick<Move, "source" | "dest" | "qemu" | "ram" | "sender">) {
    Object.assign(this, parts);
    ({ source: this.source, dest: this.dest, qemu: this.qemu } = parts);
    ({ ram: this.ram, sender: this.sender } = parts);
    this.running = this.ram.run();
    this.running.catch(() => undefined);
  }

  static async begin(): Promise<Move> {
    const source = await start("source", false);
    await source.console.waitFor(({ latestReport }) => latestReport !== null, {
      timeoutMs: WAIT_MS,
    });
    const dest = await start("dest", true);
    const move: { made: Move | null } = { made: null };
    const qemu = await IncomingQemu.open({
      qmp: dest.guest.qmp,
      clock: systemClock,
      socketPath: join(directory, "dest.in"),
      postCopy: true,
      canRecover: dest.guest.standby !== null,
      blocks: () => ram.blocks,
      onReturnPath: (message) => {
        if (message.type === "pong") move.made!.pongs.push(message.value);
        sender.answer(message);
      },
    });
    closers.push(() => qemu.close());
    expect(qemu.postCopyRefusal).toBe("");
    expect(qemu.hasUrgentChannel).toBe(true);
    const ram = new RamReceiver({
      sink: qemu.sink,
      connections: 1,
      hashSeed: HASH_SEED,
      compression: false,
      postCopy: true,
      ramBytesMax: 2 ** 30,
    });
    const bulk = new BulkReceiver({
      connections: 1,
      creditBytes: CREDIT_BYTES,
      ram,
      disks: null,
      onCredit: () => undefined,
      onGarbage: () => undefined,
    });
    const sender = await PostcopySender.open({
      socketPath: join(directory, "source.out"),
      hashSeed: HASH_SEED,
      onFrame: (frame) => {
        bulk.arrived(0, frame);
      },
    });
    closers.push(() => {
      sender.close();
      ram.stop();
    });
    move.made = new Move({ source, dest, qemu, ram, sender });
    await move.made.#migrate();
    return move.made;
  }

  async #migrate(): Promise<void> {
    const { qmp } = this.source.guest;
    await qmp.execute("migrate-set-capabilities", {
      capabilities: [
        { capability: "return-path", state: true },
        { capability: "events", state: true },
        { capability: "pause-before-switchover", state: true },
      ],
    });
    await qmp.execute("migrate-set-parameters", {
      "max-bandwidth": 32 * 2 ** 20,
      "downtime-limit": 300,
    });
    await qmp.execute("migrate", { uri: `unix:${join(directory, "source.out")}` });
  }

  /** The guest stands; all that it has is here or in the store. */
  async stun(): Promise<void> {
    await until(this.source, "pre-switchover");
    await this.source.guest.qmp.execute("migrate-continue", { state: "pre-switchover" });
    await this.sender.stunned.promise;
  }

  /** Everything up to where the dest could run the guest. */
  async handOver(): Promise<Fetching> {
    const { sender, qemu, ram } = this;
    while (sender.sentPages < PAGES_BEFORE_DRAIN) await pause(POLL_MS);
    sender.drain();
    await this.stun();
    const digest = sender.handOver();
    await Promise.race([ram.ramEnded.promise, this.running, qemu.shut]);
    const { section, hashes, missing } = ram.switchOver!;
    const fetching = openFetching({
      ...{ section, hashes, missing, clock: systemClock },
      sink: qemu.sink,
      urgentSink: qemu.openUrgentChannel(),
      shut: qemu.shut,
      close: () => qemu.close(),
    });
    qemu.onRequest = (message) => {
      fetching.requests.asked(message);
    };
    await Promise.race([qemu.packageLoaded(), this.running]);
    expect(ram.digest()).toBe(digest);
    expect(missing.count).toBe(sender.stored.count);
    expect(missing.count).toBeGreaterThan(1000);
    sender.shut();
    await until(this.source, "completed");
    expect(await statusOf(this.source)).toBe("postmigrate");
    return fetching;
  }

  /** Answers what is asked for, and brings the rest until so many pages are left. */
  async serve({ placer, requests }: Fetching, leave = 0): Promise<number[]> {
    const latenciesMs: number[] = [];
    requests.listen({
      onRequest: ({ block, firstPage }) => {
        this.#place(placer, block, firstPage);
        // QEMU's socket may be closed by then: the next who serves is asked again.
        placer.flush().catch(() => undefined);
      },
      onPlaced: (latencyMs) => latenciesMs.push(latencyMs),
    });
    let run = placer.missing.next(0, 0, PAGES_AT_ONCE);
    while (run !== null && placer.missing.count > leave) {
      for (let page = run.first; page < run.first + run.count; page++) {
        this.#place(placer, run.block, page);
      }
      await placer.flush();
      // As slow as a link: meanwhile the guest asks.
      await pause(1);
      run = placer.missing.next(run.block, run.first + run.count, PAGES_AT_ONCE);
      run ??= placer.missing.next(0, 0, PAGES_AT_ONCE);
    }
    return latenciesMs;
  }

  /** The dest agent has ended. */
  async leave(): Promise<void> {
    const { guest } = this.dest;
    await guest.standby!.close();
    await guest.qmp.close();
  }

  async adopt(): Promise<void> {
    const { identity } = this.dest.guest;
    this.dest.guest = await adoptGuest({ ...identity, timeoutMs: WAIT_MS });
  }

  /** Before the guest itself is adopted, which its QEMU may not allow yet. */
  async recoverFirst(attempt: string): Promise<Fetching | null> {
    const oob = await StandbyMonitor.goOn({ path: this.dest.guest.paths.standby });
    closers.push(() => oob.close());
    return this.#recover(attempt, { oob, qmp: null });
  }

  /** As the next agent does with a QEMU that answers. */
  async recover(attempt: string): Promise<Fetching | null> {
    await this.leave();
    await this.adopt();
    const { qmp, standby } = this.dest.guest;
    return this.#recover(attempt, { oob: standby!, qmp });
  }

  #recover(
    attempt: string,
    ports: Pick<RecoverQemuOptions, "oob" | "qmp">,
  ): Promise<Fetching | null> {
    return recoverQemu({
      ...ports,
      clock: systemClock,
      socketPath: join(directory, `${attempt}.in`),
      section: this.ram.switchOver!.section,
      hasUrgentChannel: this.qemu.hasUrgentChannel,
    });
  }

  /** The guest works at the dest, has verified all of its memory there, and missed nothing. */
  async expectWhole(): Promise<void> {
    const { source, dest } = this;
    await dest.console.waitFor(({ latestReport }) => latestReport !== null, { timeoutMs: WAIT_MS });
    const { sweeps } = dest.console.latestReport!;
    await dest.console.waitFor(({ latestReport }) => latestReport!.sweeps >= sweeps + 2, {
      timeoutMs: WAIT_MS,
    });
    source.console.poll();
    const verdict = judgeHandOver({
      sourceLines: source.console.lines,
      destLines: dest.console.lines,
    });
    expect(verdict.findings).toEqual([]);
    expect(dest.console.latestReport).toMatchObject({ errors: 0 });
  }

  #place(placer: Fetching["placer"], block: number, page: number): void {
    if (!placer.missing.has(block, page)) return;
    const content = this.sender.content(block, page);
    if (content === null) placer.zeroPage(block, page);
    else placer.page(block, page, content, 0);
  }
}

describe("post-copy out of an ordinary migration", () => {
  it("runs the guest before its memory is there, and gives it what it asks for", async () => {
    const move = await Move.begin();
    const fetching = await move.handOver();
    expect(await statusOf(move.dest)).toBe("paused");
    // The source's QEMU is not needed any more.
    await move.source.guest.kill();
    const serving = move.serve(fetching);
    await move.dest.guest.qmp.execute("cont");
    const latenciesMs = await serving;
    expect(fetching.placer.digest()).toBe(move.sender.digest());
    await fetching.placer.end();
    await until(move.dest, "completed");
    await move.expectWhole();
    expect(latenciesMs.length).toBeGreaterThan(100);
    expect(move.pongs).toEqual([1]);
    latenciesMs.sort((a, b) => a - b);
    const at = (part: number): string =>
      latenciesMs[Math.floor(latenciesMs.length * part)]!.toFixed(2);
    console.info(`${latenciesMs.length} requests: p50 ${at(0.5)} ms, p99 ${at(0.99)} ms`);
  });

  it("is taken up by the next agent, whenever the one before has ended", async () => {
    const move = await Move.begin();
    const first = await move.handOver();
    // Prepared, and nobody has started it.
    await first.close();
    const second = await move.recover("second");
    expect(second!.placer.missing.count).toBe(move.sender.stored.count);
    expect(await statusOf(move.dest)).toBe("paused");
    // It runs, and asks; `cont` itself may need a page.
    const { missing } = second!.placer;
    const serving = move.serve(second!, Math.floor(missing.count / 2));
    await move.dest.guest.qmp.execute("cont");
    await serving;
    const left = missing.count;
    await second!.close();
    const third = await move.recover("third");
    expect(third!.placer.missing.count).toBeGreaterThanOrEqual(left);
    expect(third!.placer.missing.count).toBeLessThan(move.sender.stored.count);
    await move.serve(third!);
    // It has everything, and nobody has told it so.
    await third!.close();
    const fourth = await move.recover("fourth");
    await move.serve(fourth!);
    await fourth!.placer.end();
    expect(fourth!.placer.digest()).toBeNull();
    await fourth!.close();
    expect(await move.recover("fifth")).toBeNull();
    await move.expectWhole();
  });

  it("is taken up while its QEMU answers nothing else", async () => {
    const move = await Move.begin();
    const first = await move.handOver();
    const { qmp } = move.dest.guest;
    // It may need a page to answer, which nobody brings.
    const starting = qmp.execute("cont", undefined, { timeoutMs: WAIT_MS }).catch(() => undefined);
    await expect.poll(() => first.requests.outstanding().length, { timeout: WAIT_MS }).toBe(1);
    // QEMU's main loop waits for the vCPU, which waits for a page that nobody brings.
    const stopping = qmp.execute("stop", undefined, { timeoutMs: WAIT_MS }).catch(() => undefined);
    await expect(qmp.execute("query-status", undefined, { timeoutMs: 1000 })).rejects.toMatchObject(
      { code: "qmp-timeout" },
    );
    await move.leave();
    await Promise.all([starting, stopping]);
    await first.close();
    const second = await move.recoverFirst("second");
    await expect.poll(() => second!.requests.outstanding().length, { timeout: WAIT_MS }).toBe(1);
    const serving = move.serve(second!);
    await move.adopt();
    // Whether the stop of a monitor that was closed meanwhile is still carried out is QEMU's to say.
    await move.dest.guest.qmp.execute("cont");
    await serving;
    await second!.placer.end();
    await move.expectWhole();
  });

  it("does not disturb a migration that ends before it is needed", async () => {
    const move = await Move.begin();
    const { qemu, ram, sender } = move;
    await move.stun();
    sender.endOrdinarily();
    await Promise.race([qemu.loaded(), move.running]);
    expect(ram.switchOver).toBeNull();
    expect(ram.digest()).toBe(sender.digest());
    sender.shut();
    await until(move.source, "completed");
    await move.dest.guest.qmp.execute("cont");
    await move.expectWhole();
  });
});
