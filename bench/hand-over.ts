/*
 * What the hand-over costs the guest: the three records that it waits for, and the way of the token.
 *   node bench/hand-over.ts [--moves 20]
 * Guests of 128 MiB that do little are moved between two agents on this machine, over a link without
 * delay and over one with 10 ms each way. The figures are the agents' own, from their logs.
 */
import { parseArgs } from "node:util";
import { FaultProxy, Lab, type LogLine } from "@vmferry/testkit";

const RECORDS = [
  ["dest", "prepared"],
  ["source", "handed-off"],
  ["dest", "taken"],
] as const;
const DELAYS_MS = [0, 10];
const MOVES_MAX = 200;

/** Of one move, in milliseconds. */
interface Cost {
  /** By the record's name. */
  readonly records: ReadonlyMap<string, number>;
  /** From "QEMU says postmigrate" until the source hears TAKEN: two records, the token's way, `cont`. */
  readonly answerMs: number;
  readonly downtimeMs: number;
}

async function main(): Promise<void> {
  const { values } = parseArgs({ options: { moves: { type: "string", default: "20" } } });
  const moves = Number(values.moves);
  if (!Number.isInteger(moves) || moves < 1 || moves > MOVES_MAX) {
    process.stderr.write(`--moves is a number from 1 to ${MOVES_MAX}\n`);
    process.exitCode = 2;
    return;
  }
  const rows: string[] = [];
  for (const delayMs of DELAYS_MS) rows.push(rowOf(delayMs, await measure(moves, delayMs)));
  const head = ["link, each way", ...RECORDS.map(([, name]) => name), "sum", "answer", "downtime"];
  const lines = [head.join(" | "), head.map(() => "---").join(" | "), ...rows];
  process.stdout.write(`${lines.map((line) => `| ${line} |`).join("\n")}\n`);
}

async function measure(moves: number, delayMs: number): Promise<readonly Cost[]> {
  const proxy = await FaultProxy.open();
  const lab = await Lab.open({ peerUrl: (port) => proxy.towards(port) });
  try {
    proxy.delayMs = delayMs;
    const costs: Cost[] = [];
    for (let move = 1; move <= moves; move++) {
      costs.push(await moveOnce(lab, `guest${move}`));
      process.stderr.write(`${delayMs} ms: ${move} of ${moves}\n`);
    }
    return costs;
  } finally {
    await lab.close();
    await proxy.close();
  }
}

async function moveOnce(lab: Lab, name: string): Promise<Cost> {
  const console = await lab.bootGuest({
    name,
    memoryMib: 128,
    workload: { mem: "16M", rate: "100" },
  });
  const { id } = await lab.source.api.migrate({ guest: name, destination: "dest" });
  const { phase, result } = await lab.source.api.wait(id, 60_000);
  if (phase !== "completed") throw new Error(`the migration of ${name} is ${phase}`);
  console.close();
  const logs = { source: lab.source.log, dest: lab.dest.log };
  const records = RECORDS.map(([side, record]) => {
    const line = lineOf(logs[side], id, { record });
    return [record, line["tookMs"] as number] as const;
  });
  const handedOff = timeOf(lineOf(logs.source, id, { ownership: "handed-off" }));
  const answerMs = timeOf(lineOf(logs.source, id, { ownership: "released" })) - handedOff;
  await lab.dest.api.powerOff(name);
  await lab.source.api.powerOff(name);
  return { records: new Map(records), answerMs, downtimeMs: result?.downtimeMs ?? NaN };
}

function lineOf(log: readonly LogLine[], migrationId: string, fields: LogLine): LogLine {
  const wanted = Object.entries({ migrationId, ...fields });
  const line = log.find((one) => wanted.every(([key, value]) => one[key] === value));
  if (line === undefined) throw new Error(`no line ${JSON.stringify(fields)} in the log`);
  return line;
}

function timeOf(line: LogLine): number {
  return Date.parse(line["time"] as string);
}

function rowOf(delayMs: number, costs: readonly Cost[]): string {
  const cell = (of: (cost: Cost) => number, digits = 1): string => {
    const sorted = costs.map(of).sort((a, b) => a - b);
    const [median = NaN] = sorted.slice(sorted.length / 2);
    return `${median.toFixed(digits)} (${(sorted.at(-1) ?? NaN).toFixed(digits)})`;
  };
  const record = (name: string) => (cost: Cost) => cost.records.get(name) ?? NaN;
  const sum = (cost: Cost): number => [...cost.records.values()].reduce((a, b) => a + b, 0);
  return [
    `${delayMs} ms`,
    ...RECORDS.map(([, name]) => cell(record(name))),
    cell(sum),
    cell(({ answerMs }) => answerMs, 0),
    cell(({ downtimeMs }) => downtimeMs, 0),
  ].join(" | ");
}

await main();
