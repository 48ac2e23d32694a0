/** The host that the guest leaves, and the agent on it: the production sessions in a simulated world. */
import type { WebSocket } from "ws";
import {
  ControlChannel,
  EventHub,
  MigrationStore,
  PeerError,
  type Guest,
  type WitnessPort,
  type GivenBack,
} from "../../packages/agent/src/index.ts";
import { SourceQemu } from "../../packages/source-agent/src/adapters/source-qemu.ts";
import { BulkSocket } from "../../packages/source-agent/src/adapters/bulk-socket.ts";
import type { Dialer } from "../../packages/source-agent/src/adapters/peer-dialer.ts";
import type { LeavingSession } from "../../packages/source-agent/src/session/leaving-session.ts";
import { recoverGuests } from "../../packages/source-agent/src/session/recover-guests.ts";
import { RecoveredSession } from "../../packages/source-agent/src/session/recovered-session.ts";
import { SourceSession } from "../../packages/source-agent/src/session/source-session.ts";
import { newMigrationObject } from "../../packages/agent/src/index.ts";
import { SimulatedCargo } from "./cargo.ts";
import type { DestHost } from "./dest-host.ts";
import { Host, type Agent } from "./host.ts";
import { identity } from "./journals.ts";
import type { Life, Side } from "./life.ts";
import type { SimSocket } from "./network.ts";
import { GUEST, loggerOf, type Setting } from "./setting.ts";
import { emptyDisk, SourceMachine, type MigrationSocket } from "./source-machine.ts";

const HANDSHAKE_MS_MAX = 5000;
const SOFTWARE = "vmferry 0.1.0";

/** Nothing of memory follows a guest here. */
const NO_REST = {
  exists: () => Promise.resolve(false),
  serve: () => Promise.resolve(null),
  discard: () => Promise.resolve(),
};

export class SourceHost extends Host<SourceMachine> {
  readonly disk = emptyDisk();
  readonly dest: DestHost;
  readonly #sockets = new Map<string, MigrationSocket>();
  agent: SourceAgent | null = null;

  constructor(setting: Setting, dest: DestHost) {
    super(setting, "source");
    this.dest = dest;
  }

  /** A guest that was started here. */
  startGuest(): void {
    const { scheduler, random, truth, trace, onRun, onEnd } = this.setting;
    this.record = this.recordOf("owned", 1);
    this.machine = new SourceMachine({
      ...{ scheduler, random, truth, onRun, onEnd, disk: this.disk },
      note: (what) => {
        trace.note(what);
      },
      socketOf: (uri) => this.#sockets.get(uri) ?? null,
    });
  }

  override killAgent(why: string): void {
    super.killAgent(why);
    this.agent = null;
  }

  listen(uri: string, socket: MigrationSocket | null): void {
    if (socket === null) this.#sockets.delete(uri);
    else this.#sockets.set(uri, socket);
  }

  protected override launch(life: Life): Promise<void> {
    this.agent = new SourceAgent(this, life);
    return this.agent.start();
  }

  protected override async bringBack(life: Life, guest: Guest): Promise<GivenBack> {
    const { machine } = this;
    await life.sleep(this.setting.random.spread(0.5, 20));
    if (machine === null || !life.port("source disks leave")) return "nothing";
    machine.gate = null;
    machine.retryWrite();
    const { status } = await guest.qmp.execute("query-status");
    if (status === "io-error") await guest.qmp.execute("cont");
    return "given";
  }
}

export class SourceAgent implements Agent {
  readonly store: MigrationStore;
  readonly #host: SourceHost;
  readonly #life: Life;
  readonly #running = new Map<string, LeavingSession>();
  #guest: Guest | null = null;
  #witness: WitnessPort | null = null;
  #isReady = false;

  constructor(host: SourceHost, life: Life) {
    this.#host = host;
    this.#life = life;
    const { clock } = life;
    this.store = new MigrationStore({ hub: new EventHub({ clock }), clock });
  }

  get isIdle(): boolean {
    return this.#isReady && this.#running.size === 0;
  }

  /** What a user is shown; null where there is no guest. */
  get guestState(): string | null {
    return this.#guest?.state ?? null;
  }

  /** As `SourceMigrations.recover`. */
  async start(): Promise<void> {
    const { setting } = this.#host;
    const { clock } = this.#life;
    const logger = loggerOf(setting, this.#life);
    this.#witness = this.#host.openWitness(this.#life);
    const registry = this.#host.registryOf(this.#life, (guest) => {
      this.#guest = guest;
    });
    const journals = this.#host.journal.shelf<"source">(this.#life, setting.bug.sourceJournal);
    const { store } = this;
    const where = { registry, journals, imageDir: "", clock, logger, store };
    const left = await recoverGuests({ ...where, witness: this.#witness }, () => undefined);
    for (const { stun, step, ports } of left) {
      const nothing = { rest: NO_REST, leftDisks: NO_REST, peerRefusal: null };
      const common = { store: this.store, clock, logger, dialer: this.#dialer, identity: SOURCE };
      const session = new RecoveredSession({ ...common, ...ports, ...nothing }, stun, step);
      this.#follow(stun.migrationId, session);
    }
    this.#isReady = true;
  }

  /** As `SourceMigrations.start`; false where the guest cannot be migrated now. */
  migrate(totalMsMax: number | null): boolean {
    const guest = this.#guest;
    if (!this.#isReady || guest === null || guest.busyWith !== null) return false;
    if (guest.state !== "running") return false;
    const { setting, journal, disk, machine } = this.#host;
    const { clock } = this.#life;
    if (machine === null) return false;
    const id = setting.random.uuid();
    const qemu = new SourceQemu(guest.qmp, clock);
    const journals = journal.shelf<"source">(this.#life, setting.bug.sourceJournal);
    const object = { id, role: "source", guest: GUEST, destination: "b" } as const;
    this.store.create(newMigrationObject({ ...object, startedAt: clock.date() }));
    const limits = { bandwidthBytesPerSecond: null, downtimeMsTarget: 300, totalMsMax };
    const listen = this.#host.listen.bind(this.#host);
    const cargo = { setting, life: this.#life, machine, disk, guest, qemu, listen };
    const session = new SourceSession(
      {
        ...{ guest, qemu, store: this.store, clock, dialer: this.#dialer, identity: SOURCE },
        openJournal: () => journals.take(identity),
        openCargo: (options) => Promise.resolve(new SimulatedCargo(cargo, options)),
        logger: loggerOf(setting, this.#life),
        random: () => setting.random.between(0, 1),
        bulkConnections: setting.random.pick([1, 2]),
        witness: this.#witness,
      },
      { id, destination: "b", onStall: "throttle", disk: DISK, limits, traceParent: null } as never,
    );
    this.#follow(id, session);
    return true;
  }

  cancel(): void {
    for (const session of this.#running.values()) {
      try {
        session.cancel();
      } catch {
        // It is past the hand-over.
      }
    }
  }

  /** A person has made sure that the other side does not run, and says whose the guest is. */
  settle(owner: Side): void {
    for (const session of this.#running.values()) {
      // Where nothing is in doubt there is nothing to settle.
      session.settle(owner).catch(() => undefined);
    }
  }

  async stop(): Promise<void> {
    for (const session of this.#running.values()) session.stop();
    while (this.#running.size > 0) await this.#life.sleep(5);
  }

  #follow(id: string, session: LeavingSession & { run(): Promise<void> }): void {
    this.#running.set(id, session);
    void session
      .run()
      .catch((error: unknown) => {
        this.#host.setting.onFault(`a session of the source rejects: ${String(error)}`);
      })
      .then(() => {
        this.#running.delete(id);
      });
  }

  get #dialer(): Dialer {
    return {
      control: (signal) =>
        this.#dial(signal, (near, far) => {
          const channel = new ControlChannel(near as unknown as WebSocket, this.#life.clock);
          this.#host.dest.agent?.acceptControl(far);
          return this.#host.setting.bug.sourceChannel?.(channel, this.#life) ?? channel;
        }),
      bulk: async (hello, signal) => {
        const connection = await this.#dial(signal, (near, far) => {
          this.#host.dest.agent?.acceptBulk(far);
          return new BulkSocket(near as unknown as WebSocket, hello, this.#life.clock);
        });
        return connection.answered(signal);
      },
    };
  }

  /** A connection is there at once or not at all; what makes it wait is the network's. */
  #dial<T>(signal: AbortSignal, wrap: (near: SimSocket, far: SimSocket) => T): Promise<T> {
    const { network, scheduler } = this.#host.setting;
    const life = this.#life;
    return new Promise((resolve, reject) => {
      signal.throwIfAborted();
      if (!life.port("source dials")) return;
      signal.addEventListener(
        "abort",
        () => {
          reject(signal.reason as Error);
        },
        { once: true },
      );
      const fail = (): void => {
        if (!life.isDead) reject(unreachable());
      };
      scheduler.after(network.latencyMs * 2, () => {
        if (life.isDead || signal.aborted) return;
        const isSilent = network.isCut("dest") || network.isCut("source") || !network.isUp("dest");
        const far = this.#host.dest;
        if (isSilent) scheduler.after(HANDSHAKE_MS_MAX, fail);
        else if (far.life === null || far.agent?.isListening !== true) fail();
        else {
          const ends = network.connect(life, far.life);
          resolve(wrap(ends.near, ends.far));
        }
      });
    });
  }
}

const SOURCE = { software: SOFTWARE, incarnation: "source-process" };
const DISK = {};

function unreachable(): PeerError {
  return new PeerError("no dest agent answers", { code: "peer-unreachable", url: "ws://dest" });
}
