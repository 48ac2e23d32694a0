import { describe, expect, test } from "vitest";
import { Deferred } from "@vmferry/core";
import { StateKeeper } from "./state-keeper.ts";

type State = { readonly phase: "idle" } | { readonly phase: "busy" } | { readonly phase: "done" };
type Event = "start" | "finish" | "ping" | "illegal";

const idle: State = { phase: "idle" };

/** idle → busy → done, with two actions a step; `ping` changes nothing and has one action. */
function next(state: State, event: Event): { state: State; actions: string[] } {
  if (event === "ping") return { state, actions: ["pong"] };
  if (event === "start" && state.phase === "idle") {
    return { state: { phase: "busy" }, actions: ["open", "announce"] };
  }
  if (event === "finish" && state.phase === "busy") {
    return { state: { phase: "done" }, actions: ["close", "report"] };
  }
  throw new Error(`${event} is illegal while ${state.phase}`);
}

class Bench {
  readonly log: string[] = [];
  readonly keeper: StateKeeper<State, Event, string>;
  /** What an action waits for, or fails with. */
  readonly gates = new Map<string, Promise<void>>();

  constructor() {
    this.keeper = new StateKeeper<State, Event, string>({
      initial: idle,
      next,
      act: async (action) => {
        this.log.push(`${action}…`);
        await this.gates.get(action);
        this.log.push(action);
      },
      onState: (state, event) => {
        this.log.push(`${event} → ${state.phase}`);
      },
    });
  }
}

describe("a state keeper", () => {
  test("tells the new state before it carries out its actions, one after another", async () => {
    const { keeper, log } = new Bench();
    await keeper.apply("start");
    expect(keeper.state).toEqual({ phase: "busy" });
    expect(log).toEqual(["start → busy", "open…", "open", "announce…", "announce"]);
  });

  test("takes the next event only when the actions of this one are done", async () => {
    const bench = new Bench();
    const { keeper, log } = bench;
    const gate = new Deferred();
    bench.gates.set("open", gate.promise);
    const both = Promise.all([keeper.apply("start"), keeper.apply("finish")]);
    await new Promise((resolve) => setImmediate(resolve));
    expect(log).toEqual(["start → busy", "open…"]);
    expect(keeper.state.phase).toBe("busy");
    gate.resolve();
    await both;
    expect(log.slice(2)).toEqual([
      "open",
      "announce…",
      "announce",
      "finish → done",
      "close…",
      "close",
      "report…",
      "report",
    ]);
  });

  test("takes events in the order in which they came", async () => {
    const { keeper, log } = new Bench();
    const events: Event[] = ["ping", "start", "ping", "finish", "ping"];
    await Promise.all(events.map((event) => keeper.apply(event)));
    expect(log.filter((line) => line.includes("→") || line === "pong")).toEqual([
      "pong",
      "start → busy",
      "pong",
      "finish → done",
      "pong",
    ]);
  });

  test("tells nothing where nothing changed", async () => {
    const { keeper, log } = new Bench();
    await keeper.apply("ping");
    expect(log).toEqual(["pong…", "pong"]);
  });

  test("refuses an illegal event, stays where it is, and takes the next one", async () => {
    const { keeper, log } = new Bench();
    const refused = keeper.apply("finish");
    const taken = keeper.apply("start");
    await expect(refused).rejects.toThrow("finish is illegal while idle");
    await taken;
    expect(keeper.state.phase).toBe("busy");
    expect(log[0]).toBe("start → busy");
  });

  test("tells of an action that failed, leaves out those behind it, and takes the next event", async () => {
    const bench = new Bench();
    const { keeper, log } = bench;
    const failure = Promise.reject(new Error("no"));
    failure.catch(() => undefined);
    bench.gates.set("open", failure);
    const failed = keeper.apply("start");
    const taken = keeper.apply("finish");
    await expect(failed).rejects.toThrow("no");
    await taken;
    expect(log).not.toContain("announce…");
    expect(keeper.state.phase).toBe("done");
  });

  test("goes on after a failure that nobody looked at", async () => {
    const { keeper } = new Bench();
    keeper.apply("illegal").catch(() => undefined);
    await keeper.apply("start");
    expect(keeper.state.phase).toBe("busy");
  });

  test("is idle when everything that was asked for is done, failed or not", async () => {
    const { keeper, log } = new Bench();
    keeper.apply("illegal").catch(() => undefined);
    void keeper.apply("start");
    void keeper.apply("finish");
    await keeper.idle();
    expect(log.at(-1)).toBe("report");
  });

  test("does not wait for itself when an action asks for an event", async () => {
    const asked: Promise<void>[] = [];
    const keeper: StateKeeper<State, Event, string> = new StateKeeper<State, Event, string>({
      initial: idle,
      next,
      act: (action) => {
        if (action === "announce") asked.push(keeper.apply("finish"));
      },
      onState: () => undefined,
    });
    await keeper.apply("start");
    await Promise.all(asked);
    expect(keeper.state.phase).toBe("done");
  });
});

describe("waiting for a phase", () => {
  test("is over at once when it is there already", async () => {
    const { keeper } = new Bench();
    expect(await keeper.until("idle", "done")).toBe(idle);
  });

  test("is over as soon as the phase is reached, before its actions are done", async () => {
    const bench = new Bench();
    bench.gates.set("open", new Deferred().promise);
    const reached = bench.keeper.until("busy");
    void bench.keeper.apply("start");
    expect(await reached).toEqual({ phase: "busy" });
  });

  test("ignores other phases on the way", async () => {
    const { keeper } = new Bench();
    let done = false;
    const reached = keeper.until("done").then(() => (done = true));
    await keeper.apply("start");
    expect(done).toBe(false);
    await keeper.apply("finish");
    await reached;
  });

  test("does not miss a phase that is left again at once", async () => {
    const { keeper } = new Bench();
    const reached = keeper.until("busy");
    void keeper.apply("start");
    void keeper.apply("finish");
    expect(await reached).toEqual({ phase: "busy" });
  });
});

describe("a failed action", () => {
  function failing(after: "go-on" | "take-back" | "halt"): {
    keeper: StateKeeper<State, Event, string>;
    log: string[];
  } {
    const log: string[] = [];
    const keeper = new StateKeeper<State, Event, string>({
      initial: idle,
      next,
      act: (action) => {
        log.push(action);
        if (action === "open") throw new Error("no");
      },
      onState: (state, event) => {
        log.push(`${event ?? "back"} → ${state.phase}`);
      },
      afterFailure: () => after,
    });
    return { keeper, log };
  }

  test("that did nothing takes its step back", async () => {
    const { keeper, log } = failing("take-back");
    await expect(keeper.apply("start")).rejects.toThrow("no");
    expect(keeper.state).toBe(idle);
    await keeper.apply("ping");
    expect(log).toEqual(["start → busy", "open", "back → idle", "pong"]);
  });

  test("of which nobody knows what it did halts everything, and whoever waits hears of it", async () => {
    const { keeper, log } = failing("halt");
    const waiting = keeper.until("done");
    const started = keeper.apply("start");
    const next = keeper.apply("ping");
    await expect(started).rejects.toThrow("no");
    await expect(next).rejects.toThrow("no");
    await expect(waiting).rejects.toThrow("no");
    await expect(keeper.until("busy")).rejects.toThrow("no");
    expect([keeper.isHalted, log]).toEqual([true, ["start → busy", "open"]]);
  });

  test("ends what a recovered state comes with, too", async () => {
    const { keeper, log } = failing("halt");
    await expect(keeper.perform(["open", "announce"])).rejects.toThrow("no");
    await expect(keeper.apply("ping")).rejects.toThrow("no");
    expect(log).toEqual(["open"]);
  });
});
