import { expect, test } from "vitest";
import type { Migration } from "../api/migration.ts";
import { eventOf, sampleMigration } from "../fake-agent.ts";
import { ProgressDisplay } from "./progress-display.ts";

interface Screen {
  readonly display: ProgressDisplay;
  readonly written: string[];
}

function open(terminal: { columns?: number; term?: string; isTTY?: boolean }): Screen {
  const written: string[] = [];
  const output = {
    write: (text: string) => written.push(text),
    isTTY: terminal.isTTY ?? true,
    columns: terminal.columns ?? 200,
  };
  return { display: new ProgressDisplay(output, { TERM: terminal.term ?? "xterm" }), written };
}

const inPhase = (phase: string): Migration => sampleMigration({ phase });

test("on a terminal one line is drawn over and over, and taken away at the end", () => {
  const { display, written } = open({});
  display.show(eventOf(inPhase("device-state"), { seconds: 1 }));
  display.show(eventOf(inPhase("completing"), { seconds: 1.25 }));
  display.close();
  display.close();
  expect(written).toEqual([
    "\r   1.0 s  device-state  sent 312 MiB\x1b[K",
    "\r   1.3 s  completing  sent 312 MiB\x1b[K",
    "\r\x1b[K",
  ]);
});

test.each([80, 50, 20, 12])("on %i columns the line never wraps, not even by a ^C", (columns) => {
  const { display, written } = open({ columns });
  display.show(eventOf(inPhase("pre-copy"), { seconds: 99_999 }));
  const line = written[0]!.replace("\r", "").replace("\x1b[K", "");
  expect(`${line}^C`.length).toBeLessThan(columns);
});

test("a terminal that was never told its size is taken for one of 80 columns", () => {
  const { display, written } = open({ columns: 0 });
  display.show(eventOf(inPhase("pre-copy")));
  expect(written[0]).toBe(
    "\r   1.0 s  pre-copy  sent 312 MiB  at 98.2 MB/s  left 45.2 MiB  ETA 600 ms\x1b[K",
  );
});

test("what is said stands above the line, which is drawn again below", () => {
  const { display, written } = open({});
  display.show(eventOf(inPhase("completing")));
  written.length = 0;
  display.say("Lost the agent.");
  expect(written.join("")).toBe("\rLost the agent.\x1b[K\n   1.0 s  completing  sent 312 MiB");
});

test("a warning is said, and stays", () => {
  const { display, written } = open({});
  const warning = { code: "slow-link", detail: "The link\x1b is slow." };
  display.show({ ...eventOf(inPhase("completing")), warning });
  expect(written[0]).toBe("warning: The link\ufffd is slow. (slow-link)\n");
});

test.each([
  { what: "without a terminal", terminal: { isTTY: false } },
  { what: "on a dumb terminal", terminal: { term: "dumb" } },
])("$what there is a line at each change of phase and every two seconds", ({ terminal }) => {
  const { display, written } = open(terminal);
  const show = (phase: string, seconds: number): void => {
    display.show(eventOf(inPhase(phase), { seconds }));
  };
  show("device-state", 0);
  for (let seconds = 0.25; seconds < 5; seconds += 0.25) show("device-state", seconds);
  show("completing", 5);
  display.close();
  expect(written).toEqual([
    "   0.0 s  device-state  sent 312 MiB\n",
    "   2.0 s  device-state  sent 312 MiB\n",
    "   4.0 s  device-state  sent 312 MiB\n",
    "   5.0 s  completing  sent 312 MiB\n",
  ]);
});
