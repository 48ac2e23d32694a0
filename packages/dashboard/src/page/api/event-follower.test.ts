import { describe, expect, it } from "vitest";
import type { AgentEvent } from "@vmferry/protocol";
import { AgentProblem } from "./agent-client.ts";
import { EventFollower } from "./event-follower.ts";

/** A stream of these pieces, then its end; null: nothing is to come; a status: a refusal. */
type Answer = readonly string[] | null | number;

function follow(answers: readonly Answer[]): {
  readonly run: Promise<void>;
  readonly log: readonly string[];
} {
  const log: string[] = [];
  const left = [...answers];
  const follower = new EventFollower({
    client: {
      events: (_path, { lastEventId }) => {
        log.push(`after ${lastEventId ?? "now"}`);
        const answer = left.shift();
        if (typeof answer === "number") {
          return Promise.reject(new AgentProblem("refused", { status: answer, code: "x" }));
        }
        if (answer === undefined || answer === null) return Promise.resolve(null);
        return Promise.resolve(streamOf(answer));
      },
    },
    path: "/v1/events",
    onEvent: ({ id }: AgentEvent) => log.push(`event ${id}`),
    onState: (state) => log.push(state),
    pause: (ms) => {
      log.push(`pause ${ms}`);
      return Promise.resolve();
    },
  });
  return { run: follower.run(), log };
}

function streamOf(pieces: readonly string[]): ReadableStream<Uint8Array> {
  return new ReadableStream({
    start: (controller) => {
      for (const piece of pieces) controller.enqueue(new TextEncoder().encode(piece));
      controller.close();
    },
  });
}

const event = (id: number): string => `{"id":${id},"type":"guest.state"}\n`;

describe("a stream of events", () => {
  it("is read event by event, wherever its pieces end", async () => {
    const { run, log } = follow([[event(1) + '{"id":', '2,"type":"guest.state"}\n'], null]);
    await run;
    expect(log.filter((line) => line.startsWith("event"))).toEqual(["event 1", "event 2"]);
  });

  it("that breaks is taken up after the last event that came", async () => {
    const { run, log } = follow([[event(7)], [event(8)], null]);
    await run;
    expect(log).toEqual([
      ...["connecting", "after now", "live", "event 7", "pause 500"],
      ...["connecting", "after 7", "live", "event 8", "pause 500"],
      ...["connecting", "after 8", "ended"],
    ]);
  });

  it("is asked for less and less often while nothing comes", async () => {
    const { run, log } = follow([503, 503, 0, 503, 0, 503, null]);
    await run;
    const pauses = log.filter((line) => line.startsWith("pause"));
    expect(pauses).toEqual([1000, 2000, 4000, 8000, 8000, 8000].map((ms) => `pause ${ms}`));
  });

  it("is not asked for again without a token that is accepted", async () => {
    const { run, log } = follow([401]);
    await run;
    expect(log).toEqual(["connecting", "after now", "unauthorized"]);
  });

  it("of a migration that is not known has ended", async () => {
    const { run, log } = follow([404]);
    await run;
    expect(log.at(-1)).toBe("ended");
  });

  it("with something else than an event in it counts as broken", async () => {
    const { run, log } = follow([["<html>\n"], null]);
    await run;
    expect(log).toContain("pause 1000");
  });
});
