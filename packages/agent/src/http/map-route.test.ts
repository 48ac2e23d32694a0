import { afterEach, describe, expect, it } from "vitest";
import type { MigrationMap } from "@vmferry/protocol";
import { ProblemError } from "../problem-error.ts";
import { createApi, sampleMigration, type Api, type ApiOptions } from "./api-fixture.ts";

const opened: Api[] = [];
const MAP: MigrationMap = {
  ram: { totalBytes: 8192, cells: "sw" },
  disks: [{ id: "disk0", totalBytes: 65_536, cells: "k" }],
};

afterEach(async () => {
  await Promise.all(opened.splice(0).map(({ app }) => app.close()));
});

async function ask(
  url: string,
  steering: ApiOptions["steering"] = {},
): Promise<{ status: number; body: unknown }> {
  const api = createApi({ steering });
  opened.push(api);
  api.store.create(sampleMigration("m1"));
  const answer = await api.app.inject({ method: "GET", url });
  return { status: answer.statusCode, body: answer.json() };
}

describe("the map of a migration", () => {
  it("has 1024 cells unless told otherwise", async () => {
    const asked: unknown[] = [];
    const map = (id: string, cells: number): MigrationMap => {
      asked.push([id, cells]);
      return MAP;
    };
    expect(await ask("/v1/migrations/m1/map", { map })).toEqual({ status: 200, body: MAP });
    await ask("/v1/migrations/m1/map?cells=4096", { map });
    expect(asked).toEqual([
      ["m1", 1024],
      ["m1", 4096],
    ]);
  });

  it("is not known where the service draws none", async () => {
    expect(await ask("/v1/migrations/m1/map")).toEqual({
      status: 200,
      body: { ram: null, disks: [] },
    });
  });

  it.each(["0", "4097", "1e3", "x", ""])("is refused with cells=%s", async (cells) => {
    expect(await ask(`/v1/migrations/m1/map?cells=${cells}`)).toMatchObject({
      status: 400,
      body: { code: "invalid-request" },
    });
  });

  it("is not found where the migration is not", async () => {
    const map = (): MigrationMap => {
      throw new ProblemError("not to be asked", { code: "internal" });
    };
    expect(await ask("/v1/migrations/m2/map", { map })).toMatchObject({
      status: 404,
      body: { code: "migration-not-found" },
    });
  });
});
