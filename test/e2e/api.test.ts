import { describe, expect, it } from "vitest";
import type { MigrationObject } from "@vmferry/protocol";
import type { AgentProcess } from "@vmferry/testkit";
import { expectArrives } from "../expect-guest.ts";
import { useLab } from "../test-lab.ts";

const TRACE_ID = "4bf92f3577b34da6a3ce929d0e0e4736";

describe("what machines ask of the agents", () => {
  const test = useLab();

  const post = (body: object, headers: Record<string, string>): Promise<Response> =>
    fetch(new URL("/v1/migrations", test.lab.source.api.url), {
      method: "POST",
      headers: { "content-type": "application/json", ...headers },
      body: JSON.stringify(body),
    });

  it("a migration that is asked for twice with one key, in a trace, is one, and is counted once", async () => {
    const guest = await test.boot({ workload: { mem: "32M" } });
    const body = { guest: guest.name, destination: "dest" };
    const headers = {
      "idempotency-key": "once",
      traceparent: `00-${TRACE_ID}-00f067aa0ba902b7-01`,
    };
    const [first, second] = await Promise.all([post(body, headers), post(body, headers)]);
    const { id } = (await first.json()) as MigrationObject;
    expect(await second.json()).toMatchObject({ id, traceId: TRACE_ID });
    for (const answer of [first, second]) {
      expect([answer.status, answer.headers.get("location")]).toEqual([
        202,
        `/v1/migrations/${id}`,
      ]);
    }
    await expectArrives(guest, id);
    const third = await post(body, headers);
    expect([third.status, await third.json()]).toMatchObject([202, { id, phase: "completed" }]);
    const other = await post({ ...body, mode: "pre-copy" }, headers);
    expect([other.status, await other.json()]).toMatchObject([
      409,
      { code: "idempotency-conflict" },
    ]);

    const [source, dest] = [test.lab.source, test.lab.dest];
    expect(await source.api.migrations()).toHaveLength(1);
    expect(await dest.api.migration(id)).toMatchObject({ traceId: TRACE_ID });
    for (const agent of [source, dest]) {
      const lines = agent.log.filter(({ migrationId }) => migrationId === id);
      expect(lines.length).toBeGreaterThan(0);
      expect(lines.every(({ traceId }) => traceId === TRACE_ID)).toBe(true);
      const sample = await samples(agent);
      expect(sample("vmferry_migrations_total", 'outcome="completed"')).toBe(1);
      expect(
        sample("vmferry_migration_data_bytes_total", 'part="ram",kind="sent"'),
      ).toBeGreaterThan(0);
      expect(sample("vmferry_migration_wire_bytes_total")).toBeGreaterThan(0);
      expect(sample("vmferry_migrations_active", 'phase="pre-copy"')).toBe(0);
      expect(sample("vmferry_journal_sync_seconds_count")).toBeGreaterThan(1);
      expect(sample("nodejs_eventloop_lag_p99_seconds")).toBeGreaterThan(0);
      expect(sample("process_resident_memory_bytes")).toBeGreaterThan(2 ** 20);
    }
    const { result } = await source.api.migration(id);
    const sample = await samples(source);
    expect(sample("vmferry_migration_downtime_seconds_sum")).toBe(result!.downtimeMs! / 1000);
    expect((await samples(dest))("vmferry_guests", 'state="running"')).toBe(1);
  });
});

/** Looks a series of the agent up by its name and labels, the role left out. */
async function samples(
  agent: AgentProcess,
): Promise<(name: string, labels?: string) => number | undefined> {
  const response = await fetch(new URL("/metrics", agent.api.url));
  expect(response.status).toBe(200);
  const lines = (await response.text()).split("\n");
  return (name, labels = "") => {
    const line = lines.find((each) => each.startsWith(`${name}{${labels}`));
    return line === undefined ? undefined : Number(line.split(" ").at(-1));
  };
}
