/** Composition root of the dest agent. */
import { randomUUID } from "node:crypto";
import { join } from "node:path";
import { messageOf, systemClock as clock } from "@vmferry/core";
import {
  AgentMetrics,
  agentReadiness,
  createHttpServer,
  createLogger,
  LateWitness,
  EventHub,
  GuestRegistry,
  JournalShelf,
  loadProcessConfig,
  openHeldSockets,
  openMigrations,
  openPeerTls,
  prepareDirectories,
  removeVoidImages,
  runAgent,
  SOFTWARE,
  tuneGarbageCollection,
  VERSION,
  type DestConfig,
  type Logger,
  type PeerTls,
} from "@vmferry/agent";
import { loadDashboard } from "@vmferry/dashboard";
import { checkSocketPath } from "@vmferry/qemu";
import { PeerListener } from "./adapters/peer-listener.ts";
import { LazyDisks } from "./session/lazy-disks.ts";
import { answerProbe } from "./preflight/answer-probe.ts";
import { askAhead } from "./preflight/ask-ahead.ts";
import { openReception } from "./session/reception.ts";
import { MemoryFetch } from "./session/memory-fetch.ts";
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
  const { apiToken, qemu, imageDir, sharedDir } = config;
  const logger = createLogger({ role: "dest", level: config.logLevel });
  const tls = openPeerTls(config, logger);
  const dashboard = await loadDashboard("dest");
  const runDir = await prepareDirectories(config);
  // Those of exports are as long, and so is the name of their directory.
  checkSocketPath(join(runDir, "01234567.in"));
  const sockets = await openHeldSockets(config, logger);
  const hub = new EventHub({ clock });
  const { store, history } = await openMigrations({ role: "dest", config, hub, clock, logger });
  const registry = new GuestRegistry({
    ...{ ...config, hub, logger },
    attach: { attaching: "prepared" },
  });
  const { guestsDir } = registry;
  const metrics = new AgentMetrics({ role: "dest", hub, guests: registry, logger });
  metrics.watchProcess();
  metrics.watchCertificates(tls);
  const journals = await JournalShelf.open("dest", config.stateDir, (seconds) => {
    metrics.journalSynced(seconds);
  });
  const onPageFault = (seconds: number): void => {
    metrics.pageFaulted(seconds);
  };
  const witness = sharedDir === null ? null : new LateWitness(sharedDir);
  const sessions = new DestSessions({
    ...{ store, witness, sharedDir, journals, logger, clock, onPageFault, runDir },
    ...{ guestsDir, incarnation: randomUUID(), software: SOFTWARE },
    answerProbe: (probe, earlier) =>
      answerProbe({ registry, witness, qemu, imageDir, clock, earlier }, probe),
    openReception: (options) =>
      openReception({ registry, qemu, clock, logger, runDir, sockets, imageDir }, options),
  });
  const recovered = sessions.recover({
    ...{ registry, journals, imageDir },
    takeUpDisks: () => LazyDisks.takeUpAll({ guestsDir, imageDir, clock, logger, sockets }),
    takeUp: () =>
      MemoryFetch.takeUpAll({ guestsDir, runDir, sharedDir, clock, logger, onPageFault }),
  });
  const listener = await listenForSources(config, { sessions, tls, logger });
  const active = await recovered;
  if (active !== null) {
    await removeVoidImages({ imageDir, active, prepared: registry.preparedImages(), logger });
  } else logger.warn("not every guest can be judged: what is left of images stays");
  logger.info({ host: config.peerListen.host, port: listener.port }, "listening for source agents");
  const readiness = (): ReturnType<typeof agentReadiness> => agentReadiness(qemu, tls);
  const app = createHttpServer({
    role: "dest",
    ...{ logger, apiToken, hub, metrics, dashboard },
    guests: registry,
    migrations: sessions,
    readiness,
  });
  await runAgent({
    app,
    apiListen: config.apiListen,
    logger,
    readiness,
    stop: async () => {
      await sessions.stop();
      await listener.close();
      await history.idle();
      hub.close();
      await registry.detach();
    },
  });
  await askAhead(qemu, logger);
}

interface ListenerParts {
  readonly sessions: DestSessions;
  readonly tls: PeerTls | null;
  readonly logger: Logger;
}

function listenForSources(
  { peerListen, peerToken }: DestConfig,
  { sessions, tls, logger }: ListenerParts,
): Promise<PeerListener> {
  return PeerListener.open({
    ...peerListen,
    token: peerToken,
    tls,
    clock,
    onStranger: (stranger) => {
      logger.warn(stranger, "a source agent was refused by TLS");
    },
    onControl: (channel) => void sessions.admitControl(channel),
    onBulk: (socket) => {
      sessions.admitBulk(socket);
    },
    onPages: (socket) => {
      sessions.admitPages(socket);
    },
    onBlocks: (socket) => {
      sessions.admitBlocks(socket);
    },
  });
}
