// Two QEMUs with the demo guest for experiments with post-copy: started as the agents start
// theirs, but told what no agent tells. Every event and every change of state is written down.

import { spawn, type ChildProcess } from "node:child_process";
import { existsSync, readFileSync } from "node:fs";
import { createConnection, type Socket } from "node:net";
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { assert } from "@vmferry/core";
import { GUEST_CACHE } from "@vmferry/testkit";
import { PostcopyRelay } from "./postcopy-relay.ts";
import { RawQmp } from "./raw-qmp.ts";

const WAIT_MS_MAX = 25_000;

const DEMO_GUEST = [
  ...["-m", "160M", "-kernel", join(GUEST_CACHE, "vmlinuz")],
  ...["-initrd", join(GUEST_CACHE, "initrd.img"), "-append"],
  [
    "console=ttyS0 quiet panic=-1 tsc=unstable no_timer_check",
    "vmferry.mem=64M vmferry.rate=4000 vmferry.hot=50:10",
  ].join(" "),
];

export class LabMachine {
  readonly name: string;
  readonly qmp: RawQmp;
  readonly directory: string;
  readonly #child: ChildProcess;
  /** Negotiated at once: later the main loop, which has to agree to it, may hang. */
  readonly #oob: Socket;
  exit: string | null = null;

  private constructor(name: string, directory: string, child: ChildProcess, qmp: RawQmp) {
    this.name = name;
    this.directory = directory;
    this.#child = child;
    this.qmp = qmp;
    this.#oob = createConnection(join(directory, `${name}.oob`));
    this.#oob.on("error", () => undefined);
    this.#oob.write('{"execute":"qmp_capabilities","arguments":{"enable":["oob"]}}\n');
    child.once("exit", (code, signal) => {
      this.exit = String(code ?? signal);
    });
  }

  static async start(
    pair: { readonly directory: string; readonly say: (what: string) => void },
    name: string,
    incoming: boolean,
    extra: readonly string[] = [],
  ): Promise<LabMachine> {
    const { directory, say } = pair;
    const qmpPath = join(directory, `${name}.qmp`);
    const child = spawn(
      process.env["VMFERRY_QEMU"] ?? "qemu-system-x86_64",
      [
        ...["-machine", "pc-q35-10.0,accel=tcg", "-cpu", "qemu64"],
        ...["-nodefaults", "-no-user-config", "-display", "none"],
        ...["-sandbox", "on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny"],
        ...DEMO_GUEST,
        ...["-serial", `file:${join(directory, `${name}.serial`)}`],
        ...["-qmp", `unix:${qmpPath},server=on,wait=off`],
        ...["-qmp", `unix:${join(directory, `${name}.oob`)},server=on,wait=off`],
        ...(incoming ? ["-S", "-incoming", "defer"] : []),
        ...extra,
      ],
      { stdio: ["ignore", "ignore", "pipe"] },
    );
    child.stderr.on("data", (text: Buffer) => {
      say(`${name} stderr: ${text.toString().trim()}`);
    });
    while (!existsSync(qmpPath)) await sleep(10);
    await sleep(50);
    const qmp = await RawQmp.connect(qmpPath);
    void qmp
      .waitFor(({ event, data }) => {
        say(`${name}: event ${event} ${data === undefined ? "" : JSON.stringify(data)}`);
        return false;
      })
      .catch(() => undefined);
    return new LabMachine(name, directory, child, qmp);
  }

  async capabilities(...names: readonly string[]): Promise<void> {
    await this.qmp.execute("migrate-set-capabilities", {
      capabilities: names.map((capability) => ({ capability, state: true })),
    });
  }

  /** `run state / migration status`, or why there is none. */
  async states(): Promise<string> {
    const ask = async (): Promise<string> => {
      const run = (await this.qmp.execute("query-status")) as { status: string };
      const migration = (await this.qmp.execute("query-migrate")) as { status?: string };
      return `${run.status} / ${migration.status ?? "none"}`;
    };
    if (this.exit !== null) return `exited ${this.exit}`;
    return await Promise.race([
      ask().catch((error: unknown) => `no answer: ${String(error)}`),
      sleep(3000, "QMP does not answer for 3 s"),
    ]);
  }

  async until(pattern: RegExp, msMax = WAIT_MS_MAX): Promise<string> {
    const deadline = performance.now() + msMax;
    for (;;) {
      const states = await this.states();
      if (pattern.test(states)) return states;
      if (performance.now() > deadline) return `NOT REACHED, but ${states}`;
      await sleep(5);
    }
  }

  async attempt(command: string, commandArguments: object = {}): Promise<string> {
    return await Promise.race([
      this.qmp.execute(command, commandArguments).then(
        () => "accepted",
        (error: unknown) => String(error),
      ),
      sleep(5000, "no answer for 5 s"),
    ]);
  }

  /** Past the main loop of QEMU, which may be waiting for a page. */
  async outOfBand(command: string, commandArguments: object = {}): Promise<string> {
    let text = "";
    this.#oob.on("data", (chunk: Buffer) => {
      text += chunk.toString();
    });
    const message = { "exec-oob": command, arguments: commandArguments, id: 1 };
    this.#oob.write(`${JSON.stringify(message)}\n`);
    for (let i = 0; i < 100 && !text.includes('"id": 1'); i++) await sleep(20);
    return /.*"id": 1.*/.exec(text)?.[0].trim() ?? "no answer for 2 s";
  }

  console(): string {
    const path = join(this.directory, `${this.name}.serial`);
    return existsSync(path) ? readFileSync(path, "latin1") : "";
  }

  lastReport(): string {
    return (
      this.console()
        .match(/VF seq=\d+ ms=.*/g)
        ?.at(-1) ?? "no report"
    );
  }

  async works(): Promise<string> {
    const before = this.lastReport();
    for (let i = 0; i < 400 && this.lastReport() === before; i++) await sleep(25);
    const errors = this.console().match(/VF ERROR.*/g) ?? [];
    const after = this.lastReport();
    return `${after === before ? "SILENT" : "works"}, ${errors.length} errors; ${after.slice(0, 90)}`;
  }

  kill(): Promise<void> {
    return new Promise((resolve) => {
      if (this.exit !== null) resolve();
      else {
        this.#child.once("exit", () => {
          resolve();
        });
        this.#child.kill("SIGKILL");
      }
    });
  }
}

export class PostcopyPair {
  readonly directory: string;
  readonly say: (what: string) => void;
  source!: LabMachine;
  dest!: LabMachine;
  #relay: PostcopyRelay | null = null;
  readonly machines: LabMachine[] = [];

  private constructor(directory: string, say: (what: string) => void) {
    this.directory = directory;
    this.say = say;
  }

  static async open(
    capabilities: readonly string[],
    say: (what: string) => void,
  ): Promise<PostcopyPair> {
    const pair = new PostcopyPair(await mkdtemp(join(tmpdir(), "vmferry-postcopy-")), say);
    pair.source = await pair.start("source", false);
    for (let i = 0; i < 1200 && !/VF seq=/.test(pair.source.console()); i++) await sleep(50);
    pair.dest = await pair.start("dest", true);
    await pair.source.capabilities("return-path", "events", ...capabilities);
    const ofDest = capabilities.filter((name) => name.startsWith("postcopy"));
    await pair.dest.capabilities("return-path", "events", "late-block-activate", ...ofDest);
    return pair;
  }

  get relay(): PostcopyRelay {
    assert(this.#relay !== null, "a migration has begun");
    return this.#relay;
  }

  set relay(relay: PostcopyRelay) {
    this.#relay = relay;
  }

  async start(name: string, incoming: boolean, extra: readonly string[] = []): Promise<LabMachine> {
    const machine = await LabMachine.start(this, name, incoming, extra);
    this.machines.push(machine);
    return machine;
  }

  path(name: string): string {
    return join(this.directory, name);
  }

  /** Pre-copy at this speed, of which some pages have passed. */
  async begin(bytesPerSecond = 16 * 2 ** 20, pages = 12_000): Promise<void> {
    await this.source.qmp.execute("migrate-set-parameters", {
      "max-bandwidth": bytesPerSecond,
      "downtime-limit": 1,
    });
    await this.dest.qmp.execute("migrate-incoming", {
      uri: `unix:${this.path("dest.sock")}`,
      "exit-on-error": false,
    });
    this.relay = this.newRelay("first");
    await this.source.qmp.execute("migrate", { uri: `unix:${this.path("first.sock")}` });
    while (this.relay.pages < pages) await sleep(10);
  }

  newRelay(name: string, destSocket = "dest.sock", decode = true): PostcopyRelay {
    return new PostcopyRelay({
      sourcePath: this.path(`${name}.sock`),
      destPath: this.path(destSocket),
      recordPrefix: this.path(name),
      say: this.say,
      decode,
    });
  }

  async tell(when: string): Promise<void> {
    this.say(
      `STATES ${when}: source ${await this.source.states()}, dest ${await this.dest.states()}`,
    );
  }

  async close(): Promise<void> {
    this.#relay?.close();
    for (const machine of this.machines) await machine.kill();
    if (process.env["KEEP"] === undefined)
      await rm(this.directory, { recursive: true, force: true });
    else console.log(this.directory);
  }
}
