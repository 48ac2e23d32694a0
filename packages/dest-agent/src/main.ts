/** Composition root of the dest agent. */
import { randomUUID } from "node:crypto";
import { join } from "node:path";
import { messageOf, systemClock as clock } from "@vmferry/core";
import {
  createHttpServer,
  createLogger,
  EventHub,
  GuestRegistry,
  loadProcessConfig,
  MigrationStore,
  prepareDirectories,
  qemuReadiness,
  runAgent,
  SOFTWARE,
  tuneGarbageCollection,
  VERSION,
  type DestConfig,
} from "@vmferry/agent";
import { checkSocketPath } from "@vmferry/qemu";
import { PeerListener } from "./adapters/peer-listener.ts";
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
  const { apiToken, peerToken, qemu } = config;
  const logger = createLogger({ role: "dest", level: config.logLevel });
  const runDir = await prepareDirectories(config);
  checkSocketPath(join(runDir, "01234567.in"));
  const hub = new EventHub({ clock });
  const store = new MigrationStore({ hub, clock });
  const registry = new GuestRegistry({ ...config, hub, logger });
  await registry.adopt();
  const sessions = new DestSessions({
    registry,
    store,
    incarnation: randomUUID(),
    software: SOFTWARE,
    qemu,
    logger,
    clock,
    runDir,
    imageDir: config.imageDir,
  });
  const listener = await PeerListener.open({
    ...config.peerListen,
    token: peerToken,
    clock,
    onControl: (channel) => void sessions.admitControl(channel),
    onBulk: (socket) => {
      sessions.admitBulk(socket);
    },
  });
  logger.info({ host: config.peerListen.host, port: listener.port }, "listening for source agents");
  const app = createHttpServer({
    role: "dest",
    logger,
    apiToken,
    guests: registry,
    migrations: store,
    hub,
    readiness: () => qemuReadiness(qemu),
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
