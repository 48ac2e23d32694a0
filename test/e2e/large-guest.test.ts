import { spawn } from "node:child_process";
import { describe, expect, it, onTestFinished } from "vitest";
import { peakRssBytes } from "@vmferry/testkit";
import { expectArrives } from "../expect-guest.ts";
import { pause } from "../moving-guest.ts";
import { useLab } from "../test-lab.ts";

const MIB = 1024 * 1024;
const RSS_BYTES_MAX = 300 * MIB;
const POLL_MS = 10;
/** The goal is 50 ms; the rest is slack for the test's own process. */
const LATENCY_P99_MS_MAX = 100;
/** A process with nothing to do: how long it takes to answer says how busy the machine is. */
const IDLE_SERVER = `
  require("node:http")
    .createServer((_, response) => response.end("ok"))
    .listen(0, "127.0.0.1", function () { console.log(this.address().port); });
`;

// A guest of 4 GiB whose memory is mostly in use: what an agent needs must not grow with it.
describe("a large guest", () => {
  const test = useLab();

  it("moves through agents that stay small and keep answering", { timeout: 400_000 }, async () => {
    const guest = await test.boot({ memoryMib: 4096, workload: { mem: "3G" } });
    const { source, dest } = test.lab;
    const urls = { source: source.api.url, dest: dest.api.url, idle: await idleServer() };
    const latencies = { source: [] as number[], dest: [] as number[], idle: [] as number[] };
    const id = await guest.migrate();
    await guest.inPhase(id, "pre-copy");
    while ((await source.api.migration(id)).phase === "pre-copy") {
      for (let i = 0; i < 20; i++) {
        for (const name of ["source", "dest", "idle"] as const) {
          latencies[name].push(await latencyMs(urls[name]));
        }
        await pause(POLL_MS);
      }
    }
    const { result, ram } = await source.api.wait(id, 300_000);
    const rssBytes = { source: peakRssBytes(source.pid), dest: peakRssBytes(dest.pid) };
    console.log(
      `4 GiB, 3 GiB in use: ${mib(ram.sentBytes)} of pages as ${mib(result!.wireBytes!)} ` +
        `in ${result!.totalMs} ms, downtime ${result!.downtimeMs} ms`,
    );
    console.log(`peak memory: source ${mib(rssBytes.source)}, dest ${mib(rssBytes.dest)}`);
    for (const [name, values] of Object.entries(latencies)) {
      const [p50, p99] = [percentile(values, 0.5), percentile(values, 0.99)];
      const figures = `p50 ${p50.toFixed(1)} ms, p99 ${p99.toFixed(1)} ms of ${values.length}`;
      console.log(`answers in pre-copy, ${name}: ${figures}`);
    }
    expect(ram.sentBytes).toBeGreaterThan(3072 * MIB);
    expect(rssBytes.source).toBeLessThan(RSS_BYTES_MAX);
    expect(rssBytes.dest).toBeLessThan(RSS_BYTES_MAX);
    const allowedMs = LATENCY_P99_MS_MAX + percentile(latencies.idle, 0.99);
    expect(percentile(latencies.source, 0.99)).toBeLessThan(allowedMs);
    expect(percentile(latencies.dest, 0.99)).toBeLessThan(allowedMs);
    await expectArrives(guest, id);
  });
});

async function idleServer(): Promise<string> {
  const child = spawn(process.execPath, ["-e", IDLE_SERVER], {
    stdio: ["ignore", "pipe", "inherit"],
  });
  onTestFinished(() => {
    child.kill("SIGKILL");
  });
  const port = await new Promise<string>((resolve) => {
    child.stdout.once("data", (text: Buffer) => {
      resolve(text.toString().trim());
    });
  });
  return `http://127.0.0.1:${port}`;
}

async function latencyMs(url: string): Promise<number> {
  const sentMs = performance.now();
  const response = await fetch(new URL("/healthz", url));
  await response.text();
  return performance.now() - sentMs;
}

function percentile(values: readonly number[], share: number): number {
  const sorted = values.toSorted((a, b) => a - b);
  return sorted[Math.min(sorted.length - 1, Math.floor(sorted.length * share))]!;
}

function mib(bytes: number): string {
  return `${Math.round(bytes / MIB)} MiB`;
}
