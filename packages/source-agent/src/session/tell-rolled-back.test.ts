import { expect, test } from "vitest";
import { ManualClock } from "@vmferry/agent";
import type { ControlMessage } from "@vmferry/protocol";
import type { ControlLink } from "./control-link.ts";
import { tellRolledBack } from "./tell-rolled-back.ts";

const about = { migrationId: "m1", epoch: 8, generation: 1, incarnation: "s1" };
const abort = { kind: "abort", ...about, code: "peer-lost", text: "the link was lost" } as const;

/** A link that is back after so many attempts; the log has what was said over it. */
async function tell(
  attempts: number,
  { forMs, stopAtMs = Infinity }: { readonly forMs: number; readonly stopAtMs?: number },
): Promise<{ readonly log: string[]; readonly over: boolean }> {
  const clock = new ManualClock();
  const log: string[] = [];
  let left = attempts;
  let over = false;
  const link = {
    resume: () => {
      left -= 1;
      log.push(left < 0 ? "resumed" : "unreachable");
      return Promise.resolve(left < 0);
    },
    send: ({ kind }: ControlMessage) => log.push(kind),
  } as unknown as ControlLink;
  const stopped = (): boolean => clock.nowMs() >= stopAtMs;
  void tellRolledBack({ link, abort, clock, stopped }).then(() => (over = true));
  for (let passed = 0; passed < forMs; passed += 50) {
    for (let turn = 0; turn < 10; turn++) await Promise.resolve();
    clock.advance(50);
  }
  for (let turn = 0; turn < 10; turn++) await Promise.resolve();
  return { log, over };
}

test("a dest is told over a link that is made anew", async () => {
  const { log, over } = await tell(3, { forMs: 2000 });
  expect([log, over]).toEqual([
    ["unreachable", "unreachable", "unreachable", "resumed", "abort"],
    true,
  ]);
});

test("a dest that stays away is not told for ever", async () => {
  const { log, over } = await tell(Infinity, { forMs: 70_000 });
  expect(over).toBe(true);
  expect(log.length).toBeLessThan(40);
});

test("an agent that stops does not go on telling", async () => {
  const { log, over } = await tell(Infinity, { forMs: 8000, stopAtMs: 1000 });
  expect([log.length < 6, over]).toEqual([true, true]);
});
