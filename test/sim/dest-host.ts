/** The host that the guest comes to, and the agent on it. */
import type { WebSocket } from "ws";
import {
  ControlChannel,
  EventHub,
  MigrationStore,
  ProblemError,
  type Guest,
  type JournalShelf,
  type GivenBack,
} from "../../packages/agent/src/index.ts";
import { DestSessions } from "../../packages/dest-agent/src/session/dest-sessions.ts";
import type {
  Reception,
  ReceptionOptions,
} from "../../packages/dest-agent/src/session/reception.ts";
import { DestMachine } from "./dest-machine.ts";
import { Host, type Agent } from "./host.ts";
import type { Life, Side } from "./life.ts";
import type { SimSocket } from "./network.ts";
import { SimulatedReception } from "./reception.ts";
import { loggerOf } from "./setting.ts";

const SOFTWARE = "vmferry 0.1.0";

export class DestHost extends Host<DestMachine> {
  /** What is durable of it. */
  disk: number[] | null = null;
  agent: DestAgent | null = null;
  /** So many of the next `cont` fail. */
  contFailures = 0;
  /** What arrives next is not what was sent. */
  damages = 0;
  /** The next arrivals find no room. */
  refusals = 0;

  readonly #staysAfterFailure = this.setting.random.chance(0.3);

  override killAgent(why: string): void {
    super.killAgent(why);
    this.agent = null;
  }

  newMachine(): DestMachine {
    const { scheduler, random, truth, trace, onRun, onEnd, bug } = this.setting;
    const machine = new DestMachine({
      ...{ scheduler, random, truth, onRun, onEnd },
      note: (what) => {
        trace.note(what);
      },
      disk: () => this.disk,
      contFails: () => {
        if (this.contFailures === 0) return false;
        this.contFailures -= 1;
        trace.note("cont fails at the dest");
        return true;
      },
      staysAfterFailure: this.#staysAfterFailure,
      autostarts: bug.destAutostarts === true,
    });
    this.machine = machine;
    return machine;
  }

  protected override launch(life: Life): Promise<void> {
    this.agent = new DestAgent(this, life);
    return this.agent.start();
  }

  protected override bringBack(): Promise<GivenBack> {
    return Promise.resolve("nothing");
  }
}

export class DestAgent implements Agent {
  readonly store: MigrationStore;
  readonly #host: DestHost;
  readonly #life: Life;
  readonly #journals: JournalShelf<"dest">;
  readonly #ports: Omit<ConstructorParameters<typeof DestSessions>[0], "witness">;
  /** Null until the agent has looked whether there is a witness. */
  #sessions: DestSessions | null = null;
  #isListening = false;
  /** Connections that are not yet what they become, and sessions that have not ended. */
  #admitting = 0;

  constructor(host: DestHost, life: Life) {
    const { setting, journal } = host;
    const { clock } = life;
    this.#host = host;
    this.#life = life;
    this.#journals = journal.shelf<"dest">(life, setting.bug.destJournal);
    this.store = new MigrationStore({ hub: new EventHub({ clock }), clock });
    this.#ports = {
      store: this.store,
      sharedDir: null,
      journals: this.#journals,
      software: SOFTWARE,
      incarnation: "dest-process",
      logger: loggerOf(setting, life),
      clock,
      ...{ guestsDir: "guests", runDir: "run", onPageFault: () => undefined },
      answerProbe: () => Promise.reject(new Error("nobody asks in this world")),
      openReception: (options) => this.#openReception(options),
    };
  }

  get isListening(): boolean {
    return this.#isListening;
  }

  get isIdle(): boolean {
    const { migrations } = this.store.list({ limit: 1000 });
    if (!this.#isListening || this.#admitting > 0) return false;
    return migrations.every(({ phase }) => FINAL.includes(phase));
  }

  async start(): Promise<void> {
    const registry = this.#host.registryOf(this.#life, () => undefined);
    const witness = this.#host.openWitness(this.#life);
    this.#sessions = new DestSessions({ ...this.#ports, witness });
    const takeUp = (): Promise<never[]> => Promise.resolve([]);
    const earlier = { takeUp, takeUpDisks: takeUp };
    await this.#sessions.recover({ registry, journals: this.#journals, imageDir: "", ...earlier });
    this.#isListening = true;
  }

  async stop(): Promise<void> {
    await this.#sessions?.stop();
  }

  /** A person has made sure that the other side does not run, and says whose the guest is. */
  settle(owner: Side): void {
    for (const { id } of this.store.list({ limit: 1000 }).migrations) {
      // Where nothing is in doubt there is nothing to settle.
      this.#sessions?.resolve(id, owner).catch(() => undefined);
    }
  }

  acceptControl(socket: SimSocket): void {
    const { bug } = this.#host.setting;
    const channel = new ControlChannel(socket as unknown as WebSocket, this.#life.clock);
    const seen = (bug.destChannel?.(channel, this.#life) ?? channel) as ControlChannel;
    this.#admitting += 1;
    void this.#sessions?.admitControl(seen).then(() => {
      this.#admitting -= 1;
    });
  }

  acceptBulk(socket: SimSocket): void {
    this.#sessions?.admitBulk(socket as unknown as WebSocket);
  }

  async #openReception(options: ReceptionOptions): Promise<Reception> {
    const host = this.#host;
    const life = this.#life;
    const { setting } = host;
    await life.sleep(setting.random.spread(1, 200));
    if (!life.port("dest QEMU starts")) return new Promise(() => undefined);
    if (host.refusals > 0) {
      host.refusals -= 1;
      throw new ProblemError("there is no room", { code: "dest-memory-insufficient" });
    }
    if (host.machine?.isAlive === true) {
      throw new ProblemError("there is such a guest", { code: "dest-guest-exists" });
    }
    const machine = host.newMachine();
    host.disk = null;
    const record = host.recordOf("incoming", options.offer.epoch);
    host.record = record;
    const process = host.processOf(life, machine);
    const guest: Guest = host.guestOf(record, process, { running: false, ownership: "incoming" });
    guest.busyWith = options.offer.migrationId;
    const registry = host.registryOf(life, () => undefined);
    const isDamaged = host.damages > 0;
    if (isDamaged) host.damages -= 1;
    const setDisk = (blocks: number[] | null): void => {
      host.disk = blocks;
    };
    await life.sleep(setting.random.spread(0.5, 20));
    return new SimulatedReception(
      { setting, life, machine, guest, registry, setDisk, isDamaged },
      options,
    );
  }
}

const FINAL: readonly string[] = ["completed", "failed", "cancelled"];
