/** The same over real WebSockets of this host, between the agents' own dialer and listener. */
import { afterEach, expect, it } from "vitest";
import type { WebSocket } from "ws";
import { systemClock } from "@vmferry/core";
import { PeerListener } from "../../packages/dest-agent/src/adapters/peer-listener.ts";
import { PageFetch } from "../../packages/dest-agent/src/postcopy/page-fetch.ts";
import { admitPages } from "../../packages/dest-agent/src/session/page-link.ts";
import { PeerDialer } from "../../packages/source-agent/src/adapters/peer-dialer.ts";
import { PageService } from "../../packages/source-agent/src/postcopy/page-service.ts";
import {
  logger,
  MemoryPlacer,
  MemoryStore,
  randomOf,
  tick,
  type Memory,
} from "./page-lanes-memory.ts";

const seed = Number(process.env["SEED"] ?? Math.trunc(Math.random() * 2 ** 31));
const about = { migrationId: "m1", epoch: 3, generation: 1, incarnation: "s1" };

const closers: (() => Promise<void> | void)[] = [];
afterEach(async () => {
  for (const close of closers.splice(0).reverse()) await close();
});

it(`carries every page once over sockets that are cut (SEED=${seed})`, async () => {
  const random = randomOf(seed);
  const faults: string[] = [];
  const memory: Memory = {
    random,
    store: new MemoryStore([8000, 5], random, 0.8),
    placed: new Map(),
    fault: (text) => faults.push(text),
  };
  const fetch = new PageFetch({
    clock: systemClock,
    logger,
    compression: true,
    maySayAll: true,
    onProgress: () => undefined,
    onEndOverdue: () => undefined,
    onPageFault: () => undefined,
  });
  const sockets = new Set<WebSocket>();
  const listener = await PeerListener.open({
    host: "127.0.0.1",
    port: 0,
    token: "a secret",
    tls: null,
    onStranger: () => undefined,
    clock: systemClock,
    onControl: () => undefined,
    onBulk: () => undefined,
    onBlocks: () => undefined,
    onPages: (socket) => {
      sockets.add(socket);
      socket.on("close", () => sockets.delete(socket));
      admitPages(socket, systemClock, () => ({
        claimMatches: (hello) => hello.incarnation === about.incarnation,
        attachPages: (lane, attempt, link) => {
          fetch.attach(lane, attempt, link);
        },
      }));
    },
  });
  const url = `ws://127.0.0.1:${listener.port}`;
  const service = new PageService({
    store: memory.store,
    dialer: new PeerDialer({ url, token: "a secret", tls: null }, systemClock),
    about,
    clock: systemClock,
    random,
    logger,
    bandwidthBytesPerSecond: 40e6,
    linkBytesPerSecond: null,
    compression: true,
    hashes: null,
    ramDigest: () => null,
    onProgress: () => undefined,
    onFailed: ({ page }) => faults.push(`page ${page} cannot be read`),
  });
  service.setPush({ isRestDue: true, hot: memory.store.hot });
  const running = service.run();
  closers.push(
    () => listener.close(),
    () => {
      fetch.close();
      service.stop();
      return running;
    },
  );
  const placer = new MemoryPlacer(memory, true);
  fetch.begin(placer);
  const end = { isThere: false };
  void fetch.whole.then(() => {
    end.isThere = true;
  });
  let cuts = 5;
  while (!end.isThere && faults.length === 0) {
    await tick();
    const run = placer.missing.next(0, Math.floor(random() * 8000), 1);
    if (run !== null && random() < 0.05) {
      fetch.requested({ block: run.block, firstPage: run.first, pageCount: 1 });
    }
    if (!service.isConnected || fetch.missingPages === 0 || random() > 0.005 || cuts === 0)
      continue;
    cuts--;
    const { reconnects } = service.counters;
    [...sockets][Math.floor(random() * sockets.size)]?.terminate();
    while (service.counters.reconnects === reconnects) await tick();
  }
  expect(faults).toEqual([]);
  expect(placer.isEnded).toBe(true);
  expect(memory.placed.size).toBe(memory.store.bytes.size);
  expect(await fetch.whole).toEqual({ ramDigest: expect.any(String) as string, equal: null });
  expect(service.counters.reconnects).toBeGreaterThan(0);
  expect(fetch.waits.count).toBeGreaterThan(0);
});
