/*
 * What listeners of events cost the agent that a migration runs in:
 *   node bench/event-listeners.ts
 * The API listens in this process, as in an agent; the listeners are another process. A migration
 * reports progress fifty times a second, of which four are told. The CPU is this process's alone.
 */
import { fork, type ChildProcess } from "node:child_process";
import { once } from "node:events";
import { connect, type AddressInfo } from "node:net";
import { fileURLToPath } from "node:url";
import {
  AgentMetrics,
  createHttpServer,
  createLogger,
  EventHub,
  MigrationStore,
  newMigrationObject,
  ProblemError,
  type GuestService,
} from "../packages/agent/src/index.ts";
import { sleep, systemClock as clock } from "@vmferry/core";

const LISTENERS = [0, 1, 100, 500];
const SECONDS = 10;
const REPORTS_PER_SECOND = 50;

const NO_GUESTS: GuestService = {
  list: () => [],
  get: (name) => {
    throw new ProblemError(`no ${name}`, { code: "guest-not-found" });
  },
  start: () => Promise.reject(new Error("no guests here")),
  attach: () => Promise.reject(new Error("no guests here")),
  powerOff: () => Promise.reject(new Error("no guests here")),
};

if (process.send === undefined) await measureAll();
else listen(Number(process.argv[2]), Number(process.argv[3]));

/** The other process: reads and forgets. */
function listen(port: number, count: number): void {
  let open = 0;
  for (let n = 0; n < count; n++) {
    const socket = connect(port, "127.0.0.1");
    socket.write("GET /v1/events HTTP/1.1\r\nHost: localhost\r\n\r\n");
    socket.once("data", () => {
      if (++open === count) process.send?.("open");
    });
    socket.resume();
  }
}

async function measureAll(): Promise<void> {
  const hub = new EventHub({ clock });
  const store = new MigrationStore({ hub, clock });
  const logger = createLogger({ role: "source", level: "error" });
  const common = { role: "source", logger, hub, guests: NO_GUESTS } as const;
  const app = createHttpServer({
    ...common,
    apiToken: null,
    migrations: store,
    readiness: () => [],
    metrics: new AgentMetrics(common),
  });
  await app.listen({ host: "127.0.0.1", port: 0 });
  const { port } = app.server.address() as AddressInfo;
  const startedAt = clock.date();
  const [id, guest, destination] = ["m1", "web1", "host-b"];
  store.create(newMigrationObject({ id, role: "source", guest, destination, startedAt }));

  console.log("| listeners | CPU of the agent, ms a second | longest report, ms |\n|---|---|---|");
  for (const count of LISTENERS) console.log(await measure({ store, port, count }));
  await app.close();
}

interface Setting {
  readonly store: MigrationStore;
  readonly port: number;
  readonly count: number;
}

async function measure({ store, port, count }: Setting): Promise<string> {
  const child = count === 0 ? null : await open(port, count);
  await sleep(clock, 1000);
  const before = process.cpuUsage();
  let longestMs = 0;
  for (let report = 1; report <= SECONDS * REPORTS_PER_SECOND; report++) {
    const fromMs = clock.nowMs();
    store.update("m1", ({ wire }) => ({ wire: { ...wire, bytes: report } }));
    longestMs = Math.max(longestMs, clock.nowMs() - fromMs);
    await sleep(clock, 1000 / REPORTS_PER_SECOND);
  }
  const { user, system } = process.cpuUsage(before);
  if (child !== null) {
    child.kill();
    await once(child, "exit");
  }
  const cpuMs = (user + system) / 1000 / SECONDS;
  return `| ${count} | ${cpuMs.toFixed(1)} | ${longestMs.toFixed(2)} |`;
}

async function open(port: number, count: number): Promise<ChildProcess> {
  const child = fork(fileURLToPath(import.meta.url), [String(port), String(count)]);
  await once(child, "message");
  return child;
}
