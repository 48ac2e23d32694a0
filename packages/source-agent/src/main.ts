/** Composition root of the source agent. */
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
  runAgent,
  SOFTWARE,
  tuneGarbageCollection,
  VERSION,
  type SourceConfig,
} from "@vmferry/agent";
import { loadDashboard } from "@vmferry/dashboard";
import { checkSocketPath } from "@vmferry/qemu";
import { DiskRecovery } from "./adapters/disk-recovery.ts";
import { SourceMigrations } from "./session/source-migrations.ts";
import { takeOver } from "./session/take-over.ts";

/** Bulk WebSockets of one migration. More of them help where one core is not enough for a link. */
const BULK_CONNECTIONS = 1;

export async function main(): Promise<void> {
  try {
    const loaded = loadProcessConfig("source", VERSION);
    if (loaded.kind === "print") process.stdout.write(loaded.text);
    else await run(loaded.config);
  } catch (error) {
    process.stderr.write(`vmferry-source-agent: ${messageOf(error)}\n`);
    process.exitCode = 2;
  }
}

async function run(config: SourceConfig): Promise<void> {
  tuneGarbageCollection();
  const { apiToken, peerToken, qemu } = config;
  const logger = createLogger({ role: "source", level: config.logLevel });
  const tls = openPeerTls(config, logger);
  const dashboard = await loadDashboard("source");
  const runDir = await prepareDirectories(config);
  checkSocketPath(join(runDir, "01234567-23.nbd"));
  const hub = new EventHub({ clock });
  const { store, history } = await openMigrations({ role: "source", config, hub, clock, logger });
  const journals = await JournalShelf.open("source", config.stateDir, (seconds) => {
    metrics.journalSynced(seconds);
  });
  const sockets = await openHeldSockets(config, logger);
  const registry = new GuestRegistry({
    ...{ ...config, hub, logger, diskRecovery: new DiskRecovery(sockets) },
    attach: {
      attaching: "running",
      takeOver: (identity) => takeOver(identity, { journals, clock }),
    },
  });
  const metrics = new AgentMetrics({ role: "source", hub, guests: registry, logger });
  metrics.watchProcess();
  metrics.watchCertificates(tls);
  const witness = config.sharedDir === null ? null : new LateWitness(config.sharedDir);
  void witness?.clean().catch((error: unknown) => {
    logger.error({ err: error }, "the shared directory is no witness yet");
  });
  const migrations = new SourceMigrations({
    registry,
    store,
    witness,
    journals,
    peers: new Map(config.peers.map(({ name, url }) => [name, { url, token: peerToken, tls }])),
    identity: { software: SOFTWARE, incarnation: randomUUID() },
    logger,
    clock,
    random: Math.random,
    runDir,
    sockets,
    memoryDir: join(config.stateDir, "memory"),
    imageDir: config.imageDir,
    sharedDir: config.sharedDir,
    bulkConnections: BULK_CONNECTIONS,
  });
  await migrations.recover();
  const readiness = (): ReturnType<typeof agentReadiness> => agentReadiness(qemu, tls);
  const app = createHttpServer({
    role: "source",
    ...{ logger, apiToken, hub, metrics, dashboard },
    guests: registry,
    migrations,
    readiness,
  });
  await runAgent({
    app,
    apiListen: config.apiListen,
    logger,
    readiness,
    stop: async () => {
      await migrations.stop();
      await history.idle();
      hub.close();
      await registry.detach();
    },
  });
}
