import { readFileSync } from "node:fs";
import type { GuestObject, MigrationObject, MigrationPhase } from "@vmferry/protocol";
import { beforeEach, describe, expect, test } from "vitest";
import { EventHub } from "../events/event-hub.ts";
import { ManualClock } from "../events/manual-clock.ts";
import { createLogger } from "../log.ts";
import { MigrationStore, type MigrationOutcome } from "../migrations/migration-store.ts";
import { newMigrationObject } from "../migrations/new-migration-object.ts";
import { AgentMetrics } from "./agent-metrics.ts";

const COMPLETED: MigrationOutcome = {
  phase: "completed",
  result: { downtimeMs: 120, totalMs: 9000, wireBytes: 7, ramDigest: "ab", diskDigests: {} },
};

let clock: ManualClock;
let hub: EventHub;
let store: MigrationStore;
let guests: Pick<GuestObject, "state">[];
let metrics: AgentMetrics;
let logLines: string[];

beforeEach(() => {
  clock = new ManualClock();
  hub = new EventHub({ clock });
  store = new MigrationStore({ hub, clock, finishedMax: 1 });
  guests = [];
  logLines = [];
  const logger = createLogger({
    role: "source",
    level: "info",
    stream: { write: (line) => void logLines.push(line) },
  });
  const list = (): readonly GuestObject[] => guests as GuestObject[];
  metrics = new AgentMetrics({ role: "source", hub, guests: { list }, logger });
});

function begin(id: string): void {
  const startedAt = clock.date();
  const [guest, destination] = [`guest-${id}`, "host-b"];
  store.create(newMigrationObject({ id, role: "source", guest, destination, startedAt }));
}

function move(id: string, ram: Partial<MigrationObject["ram"]>, wireBytes = 0): void {
  store.update(id, (object) => ({
    ram: { ...object.ram, ...ram },
    wire: { ...object.wire, bytes: wireBytes, bytesPerSecond: 1000 },
  }));
  // Progress is told four times a second.
  clock.advance(250);
}

/** The sample of that name and those labels; labels in their own order, without the role. */
async function sample(series: string): Promise<number | undefined> {
  const lines = (await metrics.text()).split("\n").filter((line) => !line.startsWith("#"));
  const without = (text: string): string =>
    text
      .replace(/role="source",?/, "")
      .replace(",}", "}")
      .replace("{}", "");
  const line = lines.find((each) => without(each).startsWith(`${series} `));
  return line === undefined ? undefined : Number(line.split(" ").at(-1));
}

async function samples(...series: string[]): Promise<(number | undefined)[]> {
  return Promise.all(series.map(sample));
}

describe("migrations", () => {
  test("what is there before any migration is zero, not absent", async () => {
    const zero = [
      'vmferry_migrations_total{outcome="completed"}',
      'vmferry_migrations_active{phase="in-doubt"}',
      'vmferry_migration_data_bytes_total{part="disk",kind="mirrored"}',
      "vmferry_migration_wire_bytes_total",
      "vmferry_migration_downtime_seconds_count",
      'vmferry_guests{state="running"}',
    ];
    expect(await samples(...zero)).toEqual(zero.map(() => 0));
  });

  test("counters add up over migrations, also over those that the agent has dropped", async () => {
    for (const id of ["m1", "m2", "m3"]) {
      begin(id);
      move(id, { sentBytes: 100, zeroBytes: 10 }, 60);
      move(id, { sentBytes: 300, zeroBytes: 10 }, 160);
      store.finish(id, COMPLETED);
    }
    expect(
      await samples(
        'vmferry_migration_data_bytes_total{part="ram",kind="sent"}',
        'vmferry_migration_data_bytes_total{part="ram",kind="zero"}',
        "vmferry_migration_wire_bytes_total",
        'vmferry_migrations_total{outcome="completed"}',
        "vmferry_migration_downtime_seconds_count",
        "vmferry_migration_downtime_seconds_sum",
      ),
    ).toEqual([900, 30, 480, 3, 3, 0.36]);
  });

  test("what the last event alone knew is counted", async () => {
    begin("m1");
    const wire = { bytes: 500, bytesPerSecond: null, reconnects: 2 };
    store.finish("m1", COMPLETED, { wire });
    const names = ["vmferry_migration_wire_bytes_total", "vmferry_migration_reconnects_total"];
    expect(await samples(...names)).toEqual([500, 2]);
  });

  test("a total that falls counts nothing, and neither does its way back", async () => {
    begin("m1");
    for (const sentBytes of [100, 40, 100, 120]) move("m1", { sentBytes });
    expect(await sample('vmferry_migration_data_bytes_total{part="ram",kind="sent"}')).toBe(120);
  });

  test("disks are counted together", async () => {
    begin("m1");
    const disk = { id: "a", mode: "copy", totalBytes: 100, copiedBytes: 10, remainingBytes: 90 };
    const counters = { mirroredBytes: 1, heldBytes: 2, round: 1, zeroBytes: 3, unchangedBytes: 4 };
    const one = { ...disk, ...counters, savedBytes: 5 } as MigrationObject["disks"][number];
    store.update("m1", () => ({ disks: [one, { ...one, id: "b", remainingBytes: null }] }));
    const kinds = ["copied", "mirrored", "zero", "unchanged", "saved"];
    const series = kinds.map((kind) => `{part="disk",kind="${kind}"}`);
    expect(
      await samples(...series.map((labels) => `vmferry_migration_data_bytes_total${labels}`)),
    ).toEqual([20, 2, 6, 8, 10]);
    expect(
      await samples(
        'vmferry_migration_remaining_bytes{part="disk"}',
        'vmferry_migration_held_bytes{part="disk"}',
      ),
    ).toEqual([90, 4]);
  });

  test("gauges show the active ones together, and nothing when they have ended", async () => {
    begin("m1");
    begin("m2");
    for (const id of ["m1", "m2"]) {
      store.phase(id, "pre-copy");
      move(id, { remainingBytes: 70, heldBytes: 5, dirtyBytesPerSecond: 9 });
    }
    const series = [
      'vmferry_migrations_active{phase="pre-copy"}',
      'vmferry_migration_remaining_bytes{part="ram"}',
      'vmferry_migration_held_bytes{part="ram"}',
      "vmferry_migration_dirty_bytes_per_second",
      "vmferry_migration_transfer_bytes_per_second",
    ];
    expect(await samples(...series)).toEqual([2, 140, 10, 18, 2000]);
    for (const id of ["m1", "m2"]) store.finish(id, COMPLETED);
    expect(await samples(...series)).toEqual([0, 0, 0, 0, 0]);
  });

  test("each phase is timed once, and so is the whole", async () => {
    begin("m1");
    const steps: [Parameters<MigrationStore["phase"]>[1], number][] = [
      ["pre-copy", 4000],
      ["stunned", 60],
      ["handing-over", 40],
    ];
    clock.advance(500);
    for (const [phase, ms] of steps) {
      store.phase("m1", phase);
      clock.advance(ms);
    }
    store.finish("m1", COMPLETED);
    const timed = async (phase: MigrationPhase): Promise<unknown[]> => {
      const name = "vmferry_migration_phase_duration_seconds";
      return samples(`${name}_count{phase="${phase}"}`, `${name}_sum{phase="${phase}"}`);
    };
    expect(await timed("preparing")).toEqual([1, 0.5]);
    expect(await timed("pre-copy")).toEqual([1, 4]);
    expect(await timed("stunned")).toEqual([1, 0.06]);
    expect(await timed("completed")).toEqual([undefined, undefined]);
    expect(await sample('vmferry_migration_duration_seconds_sum{outcome="completed"}')).toBe(4.6);
  });

  test("failures are counted by code, cancelled ones are none, and warnings by theirs", async () => {
    begin("m1");
    begin("m2");
    store.warn("m1", { code: "not-converging", detail: "it writes" });
    store.finish("m1", { phase: "failed", error: { code: "peer-lost", detail: "gone" } });
    store.finish("m2", { phase: "cancelled", error: { code: "cancelled", detail: "asked" } });
    expect(
      await samples(
        'vmferry_migration_failures_total{code="peer-lost"}',
        'vmferry_migration_failures_total{code="cancelled"}',
        'vmferry_migration_warnings_total{code="not-converging"}',
        'vmferry_migrations_total{outcome="cancelled"}',
      ),
    ).toEqual([1, undefined, 1, 1]);
  });

  test("no series names a guest, a migration or a host, so their number is bounded", async () => {
    begin("m1");
    store.finish("m1", COMPLETED);
    const before = (await metrics.text()).split("\n").length;
    for (let n = 2; n < 100; n++) {
      begin(`m${n}`);
      move(`m${n}`, { sentBytes: n });
      store.finish(`m${n}`, COMPLETED);
    }
    const text = await metrics.text();
    expect(text.split("\n")).toHaveLength(before);
    expect(text).not.toMatch(/guest-m|"m\d|host-b/);
  });

  test("an object that cannot be counted is the log's business, not that of a migration", () => {
    const startedAt = clock.date();
    const object = { id: "m1", role: "source", guest: "g", destination: "d", startedAt } as const;
    store.create({ ...newMigrationObject(object), disks: null as never });
    expect(store.get("m1").phase).toBe("preparing");
    expect(logLines.join("")).toContain("was not counted");
  });
});

describe("the agent", () => {
  test("its guests are counted by state, its listeners and its build are shown", async () => {
    guests = [{ state: "running" }, { state: "running" }, { state: "in-doubt" }];
    hub.subscribe();
    expect(
      await samples(
        'vmferry_guests{state="running"}',
        'vmferry_guests{state="in-doubt"}',
        'vmferry_guests{state="paused"}',
        "vmferry_event_listeners",
      ),
    ).toEqual([2, 1, 0, 1]);
    expect(await metrics.text()).toMatch(
      /vmferry_build_info\{version="\d+\.\d+\.\d+",node="24[^"]*",role="source"\} 1/,
    );
  });

  test("certificates show when they expire, the latest that were read", async () => {
    let at = new Date("2027-01-01T00:00:00Z");
    metrics.watchCertificates({
      get expiries() {
        return [{ certificate: "server", at } as const];
      },
    });
    const name = 'vmferry_tls_certificate_expiry_timestamp_seconds{certificate="server"}';
    expect(await sample(name)).toBe(1_798_761_600);
    at = new Date("2028-01-01T00:00:00Z");
    expect(await sample(name)).toBe(1_830_297_600);
  });

  test("syncs of journals and waits for pages are timed", async () => {
    metrics.journalSynced(0.002);
    metrics.pageFaulted(0.0004);
    expect(
      await samples(
        "vmferry_journal_sync_seconds_sum",
        'vmferry_journal_sync_seconds_bucket{le="0.0025"}',
        "vmferry_page_fault_seconds_count",
      ),
    ).toEqual([0.002, 1, 1]);
  });
});

describe("names", () => {
  const read = (path: string): string =>
    readFileSync(new URL(`../../../../docs/${path}`, import.meta.url), "utf8");

  /** Of the metrics, with those that a histogram is made of. */
  async function known(): Promise<{ readonly metrics: string[]; readonly series: Set<string> }> {
    metrics.watchProcess();
    metrics.watchCertificates(null);
    begin("m1");
    const text = await metrics.text();
    const types = [...text.matchAll(/^# TYPE (\S+) (\S+)$/gm)];
    const series = types.flatMap(([, name = "", type]) =>
      type === "histogram" || type === "summary"
        ? [`${name}_bucket`, `${name}_sum`, `${name}_count`]
        : [name],
    );
    return { metrics: types.map(([, name = ""]) => name), series: new Set(series) };
  }

  test("are in base units, and counters say that they are", async () => {
    const text = await metrics.text();
    for (const [, name = "", type] of text.matchAll(/^# TYPE (vmferry_\S+) (\S+)$/gm)) {
      expect(name).toMatch(/^vmferry_[a-z_]+$/);
      expect(name).not.toMatch(/_(ms|us|kib|mib|percent)(_|$)/);
      expect(name.endsWith("_total"), name).toBe(type === "counter");
      if (type === "histogram") expect(name).toMatch(/_seconds$/);
    }
  });

  test("docs/metrics.md has a row for each of ours, and for no other", async () => {
    const rows = [...read("metrics.md").matchAll(/^\| `(vmferry_[a-z_]+)/gm)].map(
      ([, name]) => name,
    );
    const ours = (await known()).metrics.filter((name) => name.startsWith("vmferry_"));
    expect(rows.sort()).toEqual(ours.sort());
  });

  test("each that the dashboard draws exists", async () => {
    const dashboard = read("grafana-dashboard.json");
    const expressions = [...dashboard.matchAll(/"expr": "((?:[^"\\]|\\.)*)"/g)].map(([, e]) => e!);
    expect(expressions.length).toBeGreaterThan(10);
    const { series } = await known();
    for (const expression of expressions) {
      const names = expression.match(/\b(?:vmferry|process|nodejs)_[a-z0-9_]+/g) ?? [];
      expect(names.length, expression).toBeGreaterThan(0);
      for (const name of names) expect(series, expression).toContain(name);
    }
  });
});
