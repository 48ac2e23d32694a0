import { beforeEach, describe, expect, it } from "vitest";
import { AgentState } from "./agent-state.ts";
import { sampleEvent, sampleMigration } from "../../sample-migration.ts";

const preparing = sampleMigration([["preparing", 0]]);
const copying = sampleMigration([
  ["preparing", 0],
  ["pre-copy", 20],
]);
let changes: number;
let state: AgentState;

beforeEach(() => {
  changes = 0;
  state = new AgentState(() => changes++);
});

describe("what is known of an agent", () => {
  it("is nothing before its lists are there, whatever events tell", () => {
    state.apply(sampleEvent(1, 0, { type: "migration.phase", migration: preparing }));
    expect([state.guests, state.migrations, changes]).toEqual([null, null, 0]);
  });

  it("follows the events, the newest migration first", () => {
    state.setMigrations([preparing]);
    state.apply(sampleEvent(1, 0, { type: "migration.phase", migration: copying }));
    const other = { ...preparing, id: "m2" };
    state.apply(sampleEvent(2, 0, { type: "migration.phase", migration: other }));
    expect(state.migrations).toEqual([other, copying]);
    expect(changes).toBe(3);
  });

  it("does not go back to what an event tells that is older than the list", () => {
    state.setMigrations([copying]);
    state.apply(sampleEvent(1, 0, { type: "migration.phase", migration: preparing }));
    expect(state.migrations).toEqual([copying]);
  });

  it("does not grow for ever", () => {
    state.setMigrations([]);
    for (let id = 0; id < 600; id++) {
      const migration = { ...preparing, id: `m${id}` };
      state.apply(sampleEvent(id, 0, { type: "migration.phase", migration }));
    }
    expect(state.migrations).toHaveLength(500);
    expect(state.migrations?.[0]?.id).toBe("m599");
  });
});
