/** Composition root of the dest agent. */
import { randomUUID } from "node:crypto";
import { join } from "node:path";
import { messageOf, systemClock as clock } from "@vmferry/core";
import {
  AgentMetrics,
  createHttpServer,
  createLogger,
  LateWitness,
  EventHub,
  GuestRegistry,
  JournalShelf,
  loadProcessConfig,
  MigrationStore,
  prepareDirectories,
  qemuReadiness,
  removeVoidImages,
  runAgent,
  SOFTWARE,
  tuneGarbageCollection,
  VERSION,
  type DestConfig,
} from "@vmferry/agent";
import { loadDashboard } from "@vmferry/dashboard";
import { checkSocketPath } from "@vmferry/qemu";
import { PeerListener } from "./adapters/peer-listener.ts";
import { openReception } from "./session/reception.ts";
import { RecoveredFetch } from "./session/recovered-fetch.ts";
import { DestSessions } from "./session/dest-sessions.ts";

export async function main(): Promise<void> {
  try {
    const loaded = loadProcessConfig("dest", VERSION);
    if (loaded.kind === "print") process.stdout.write(loaded.text);
    else await run(loaded.config);
  } catch (error) {
    process.stderr.write(`vmferry-dest-agent: ${messageOf(error)}\n`);
    process.exitCode = 2;
  }
}

async function run(config: DestConfig): Promise<void> {
  tuneGarbageCollection();
  const { apiToken, qemu } = config;
  const logger = createLogger({ role: "dest", level: config.logLevel });
  const dashboard = await loadDashboard("dest");
  const runDir = await prepareDirectories(config);
  checkSocketPath(join(runDir, "01234567.in"));
  const hub = new EventHub({ clock });
  const store = new MigrationStore({
    hub,
    clock,
    finishedMax: config.migrationsKeptMax,
    finishedMsMax: config.migrationsKeptDays * 86_400_000,
  });
  const registry = new GuestRegistry({
    ...{ ...config, hub, logger },
    attach: { attaching: "prepared" },
  });
  const metrics = new AgentMetrics({ role: "dest", hub, guests: registry, logger });
  metrics.watchProcess();
  const journals = await JournalShelf.open("dest", config.stateDir, (seconds) => {
    metrics.journalSynced(seconds);
  });
  const onPageFault = (seconds: number): void => {
    metrics.pageFaulted(seconds);
  };
  const { imageDir, sharedDir } = config;
  const witness = sharedDir === null ? null : new LateWitness(sharedDir);
  const sessions = new DestSessions({
    ...{ store, witness, journals, logger, clock, onPageFault },
    incarnation: randomUUID(),
    software: SOFTWARE,
    openReception: (options) => openReception({ registry, qemu, clock, runDir, imageDir }, options),
  });
  const recovered = sessions.recover({
    ...{ registry, journals, imageDir },
    takeUp: () =>
      RecoveredFetch.takeUpAll({
        ...{ guestsDir: registry.guestsDir, runDir, clock, logger, onPageFault },
      }),
  });
  const listener = await listenForSources(config, sessions);
  const active = await recovered;
  if (active !== null) await removeVoidImages({ imageDir, active, logger });
  else logger.warn("not every guest can be judged: what is left of images stays");
  logger.info({ host: config.peerListen.host, port: listener.port }, "listening for source agents");
  const app = createHttpServer({
    role: "dest",
    logger,
    apiToken,
    guests: registry,
    migrations: sessions,
    hub,
    readiness: () => qemuReadiness(qemu),
    metrics,
    dashboard,
  });
  await runAgent({
    app,
    apiListen: config.apiListen,
    logger,
    stop: async () => {
      await sessions.stop();
      await listener.close();
      hub.close();
      await registry.detach();
    },
  });
}

function listenForSources(
  { peerListen, peerToken }: DestConfig,
  sessions: DestSessions,
): Promise<PeerListener> {
  return PeerListener.open({
    ...peerListen,
    token: peerToken,
    clock,
    onControl: (channel) => void sessions.admitControl(channel),
    onBulk: (socket) => {
      sessions.admitBulk(socket);
    },
    onPages: (socket) => {
      sessions.admitPages(socket);
    },
  });
}
