import { readFile } from "node:fs/promises";
import { join } from "node:path";
import { setTimeout as delay } from "node:timers/promises";
import type { MigrationList, MigrationObject } from "@vmferry/protocol";
import type { AgentProcess, Lab } from "@vmferry/testkit";

const LOG_LINES = 15;
const CONSOLE_LINES = 15;
/** An agent that failed may not answer either. */
const ANSWER_MS_MAX = 2000;

/** What the agents and the guest said last: to be asked for before the lab is closed. */
export async function failureReport(lab: Lab): Promise<string> {
  return [
    logTail("source", lab.source),
    logTail("dest", lab.dest),
    await consoleTail("source", join(lab.directory, "s", "guests", "demo", "serial.log")),
    await consoleTail("dest", lab.destSerialLog()),
  ].join("\n");
}

/** What the agents know of the migration, where they can still be asked and there was one. */
export async function latestMigrations({
  source,
  dest,
}: Lab): Promise<{ source: MigrationObject | null; dest: MigrationObject | null }> {
  return { source: await latestMigration(source), dest: await latestMigration(dest) };
}

async function latestMigration({ api }: AgentProcess): Promise<MigrationObject | null> {
  const late = delay(ANSWER_MS_MAX, null, { ref: false });
  const asked = api.request<MigrationList>("GET", "/v1/migrations?limit=1").catch(() => null);
  const answer = await Promise.race([asked, late]);
  return answer?.migrations[0] ?? null;
}

function logTail(name: string, { logText }: AgentProcess): string {
  return section(`log of the ${name} agent`, logText.split("\n").slice(-LOG_LINES));
}

/** Without the signs of life, which come a hundred times a second. */
async function consoleTail(name: string, path: string): Promise<string> {
  const text = await readFile(path, "latin1").catch(() => "");
  const lines = text.split(/\r?\n/).filter((line) => line !== "" && !/^#\d+$/.test(line));
  return section(`guest's console at the ${name}`, lines.slice(-CONSOLE_LINES));
}

function section(title: string, lines: readonly string[]): string {
  const body = lines.length === 0 ? ["(nothing)"] : lines;
  return [`--- end of the ${title}`, ...body.map((line) => line.replace(/[\0-\x1f]/g, " "))].join(
    "\n",
  );
}
