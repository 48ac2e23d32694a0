// The command line as people and scripts have it: in a terminal, in a pipe, with Ctrl-C and with
// agents that die, with real agents and a guest that works.

import { spawn } from "node:child_process";
import { createServer } from "node:net";
import { text } from "node:stream/consumers";
import { fileURLToPath } from "node:url";
import { Compile } from "typebox/compile";
import { afterEach, describe, expect, it } from "vitest";
import { EventSchema, MigrationObjectSchema } from "@vmferry/protocol";
import { controlOf } from "@vmferry/testkit";
import { expectArrives, expectWorksAtSource } from "../expect-guest.ts";
import type { MovingGuest } from "../moving-guest.ts";
import { CTRL_C, screenOf, Terminal } from "../terminal.ts";
import { useProxiedLab } from "../test-lab.ts";

const PROGRAM = fileURLToPath(new URL("../../packages/cli/bin/vmferry.js", import.meta.url));
const COLUMNS = 70;
/** Some ten seconds of copying for the guests of these tests. */
const SLOWLY = ["--bandwidth", "8MiB/s", "--downtime", "50ms"];
/** Long enough for several lines into a pipe, of which one comes every two seconds. */
const MORE_SLOWLY = ["--bandwidth", "4MiB/s", "--downtime", "50ms"];

// The source keeps its address over a restart, so that who follows finds it again.
const apiPort = await freePort();

describe("vmferry", () => {
  const test = useProxiedLab({ source: { flags: ["--api-listen", `127.0.0.1:${apiPort}`] } });
  const terminals: Terminal[] = [];

  afterEach(() => {
    for (const terminal of terminals.splice(0)) terminal.close();
  });

  const environment = (): Record<string, string> => ({ VMFERRY_API: test.lab.source.api.url });

  const inTerminal = (...words: string[]): Terminal => {
    const terminal = new Terminal([process.execPath, PROGRAM, ...words], {
      columns: COLUMNS,
      environment: environment(),
    });
    terminals.push(terminal);
    return terminal;
  };

  const inPipe = async (...words: string[]): Promise<Piped> => {
    const child = spawn(process.execPath, [PROGRAM, ...words], {
      env: { PATH: process.env["PATH"] ?? "", ...environment() },
      stdio: ["ignore", "pipe", "pipe"],
    });
    const { promise: exitCode, resolve } = Promise.withResolvers<number | null>();
    child.once("close", resolve);
    const [stdout, stderr] = await Promise.all([text(child.stdout), text(child.stderr)]);
    return { stdout, stderr, exitCode: await exitCode };
  };

  const theMigrationOf = async ({ name }: MovingGuest): Promise<string> => {
    const migrations = await test.lab.source.api.migrations();
    return migrations.find(({ guest }) => guest === name)!.id;
  };

  it("redraws one line in a terminal until the guest has arrived", async () => {
    const guest = await test.boot();
    const terminal = inTerminal("migrate", guest.name, "dest", ...SLOWLY);
    expect(await terminal.done).toBe(0);
    const drawn = terminal.output.match(/\r[^\r\n]*pre-copy[^\r\n]*\x1b\[K/g) ?? [];
    expect(drawn.length).toBeGreaterThan(5);
    expect(drawn.at(-1)).toMatch(/sent .*at .*B\/s .*left /);
    const screen = screenOf(terminal.output, COLUMNS);
    expect(screen).toHaveLength(1);
    expect(screen[0]).toMatch(
      new RegExp(`^completed: ${guest.name} runs at dest\\. total .*, down`),
    );
    await expectArrives(guest, await theMigrationOf(guest));
  });

  it("asks to cancel at Ctrl-C, and the guest works on at the source", async () => {
    const guest = await test.boot();
    const terminal = inTerminal("migrate", guest.name, "dest", ...SLOWLY);
    await terminal.says(/pre-copy .*\x1b\[K/);
    const sinceMs = performance.now();
    terminal.press(CTRL_C);
    expect(await terminal.done).toBe(5);
    expect(screenOf(terminal.output, COLUMNS)).toEqual([
      "Asking the agent to cancel. Ctrl-C again leaves the migration alone.",
      `cancelled: ${guest.name} was not moved to dest.`,
      `${guest.name} is running at the source.`,
    ]);
    await expectWorksAtSource(guest, sinceMs);
  });

  it("leaves at a second Ctrl-C, and says how to follow on", async () => {
    const guest = await test.boot();
    const held = test.proxy.hold(controlOf("prepared"));
    const terminal = inTerminal("migrate", guest.name, "dest");
    await held;
    test.lab.source.signal("SIGSTOP"); // so that the cancel has no effect before the second one
    terminal.press(CTRL_C);
    await terminal.says("Asking the agent to cancel.");
    terminal.press(CTRL_C);
    expect(await terminal.done).toBe(130);
    test.lab.source.signal("SIGCONT");
    const id = await theMigrationOf(guest);
    expect(screenOf(terminal.output, COLUMNS).at(-1)).toBe(
      `No longer followed. To follow it again: vmferry watch ${id}`,
    );
    await test.lab.source.api.cancel(id);
    expect((await inPipe("watch", id)).exitCode).toBe(5);
    test.proxy.restore();
  });

  it("says at Ctrl-C after the hand-over that it is too late, and follows to the end", async () => {
    const guest = await test.boot();
    const held = test.proxy.hold(controlOf("token"));
    const terminal = inTerminal("migrate", guest.name, "dest");
    await held;
    terminal.press(CTRL_C);
    await terminal.says("It cannot be cancelled any more: ");
    test.proxy.restore();
    expect(await terminal.done).toBe(0);
    await expectArrives(guest, await theMigrationOf(guest));
  });

  it("finds a restarted agent again, and tells what became of the migration", async () => {
    const guest = await test.boot();
    const terminal = inTerminal("migrate", guest.name, "dest", ...SLOWLY);
    await terminal.says(/pre-copy .*\x1b\[K/);
    const id = await theMigrationOf(guest);
    await test.lab.source.kill();
    await terminal.says("Lost the agent at ");
    await test.lab.startSource();
    expect(await terminal.done).toBe(1);
    expect(screenOf(terminal.output, COLUMNS)).toEqual([
      `Lost the agent at http://127.0.0.1:${apiPort}; trying again.`,
      "The agent answers again.",
      expect.stringMatching(
        `^failed: ${guest.name} was not moved to dest: .* \\(agent-stopped\\)$`,
      ),
      `${guest.name} is running at the source.`,
    ]);
    expect(await test.lab.source.api.migration(id)).toMatchObject({ phase: "failed" });
  });

  it("writes lines into a pipe, without anything that a terminal would obey", async () => {
    const guest = await test.boot();
    const words = ["migrate", guest.name, "dest", ...MORE_SLOWLY];
    const { stdout, stderr, exitCode } = await inPipe(...words);
    expect({ stderr, exitCode }).toEqual({ stderr: "", exitCode: 0 });
    expect(stdout).not.toMatch(/[\r\x1b]/);
    const lines = stdout.trimEnd().split("\n");
    expect(
      lines.filter((line) => /^ +\d+\.\d s {2}pre-copy {2}sent /.test(line)).length,
    ).toBeGreaterThan(1);
    expect(lines.length).toBeLessThan(60);
    expect(lines.at(-1)).toMatch(/^completed: /);
  });

  it("writes with --json nothing but events, and the migration at the end", async () => {
    const guest = await test.boot();
    const { stdout, exitCode } = await inPipe("migrate", guest.name, "dest", "--json");
    expect(exitCode).toBe(0);
    const lines = stdout.trimEnd().split("\n");
    const values = lines.map((line) => JSON.parse(line) as unknown);
    const [isEvent, isMigration] = [Compile(EventSchema), Compile(MigrationObjectSchema)];
    for (const event of values.slice(0, -1)) expect([...isEvent.Errors(event)]).toEqual([]);
    expect([...isMigration.Errors(values.at(-1))]).toEqual([]);
    expect(values.at(-1)).toMatchObject({ guest: guest.name, phase: "completed" });
    expect(values.length).toBeGreaterThan(3);
  });

  it("tells by its exit status that nothing was started", async () => {
    const { exitCode, stderr } = await inPipe("migrate", "nobody", "dest");
    expect(exitCode).toBe(3);
    expect(stderr).toContain("(guest-not-found)");
  });

  it("finds this host and these agents fit", async () => {
    const { exitCode, stdout } = await inPipe("doctor", "--json", test.lab.dest.api.url);
    const { checks } = JSON.parse(stdout) as { checks: { name: string; status: string }[] };
    expect(checks.filter(({ status }) => status === "fail")).toEqual([]);
    expect(exitCode).toBe(0);
    const passed = checks.filter(({ status }) => status === "pass").map(({ name }) => name);
    expect(passed).toContain("qemu");
    expect(passed).toContain(`agent ${test.lab.dest.api.url}`);
  });
});

interface Piped {
  readonly stdout: string;
  readonly stderr: string;
  readonly exitCode: number | null;
}

async function freePort(): Promise<number> {
  const server = createServer();
  const { promise, resolve } = Promise.withResolvers<number>();
  server.listen(0, "127.0.0.1", () => {
    const address = server.address();
    server.close(() => {
      resolve(typeof address === "object" && address !== null ? address.port : 0);
    });
  });
  return promise;
}
