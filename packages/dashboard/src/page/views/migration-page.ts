/** Everything about one migration, as it happens. */
import type { AgentEvent, MigrationObject } from "@vmferry/protocol";
import { AgentProblem, eventsPathOf, type AgentClient } from "../api/agent-client.ts";
import { EventFollower, pauseFor, type FollowState } from "../api/event-follower.ts";
import { Badge } from "../dom/badge.ts";
import { make, setText } from "../dom/make.ts";
import { OncePerFrame } from "../dom/once-per-frame.ts";
import { newerOf } from "../state/agent-state.ts";
import { MigrationHistory } from "../state/migration-history.ts";
import { isFinal } from "../state/phases.ts";
import { Actions } from "./actions.ts";
import { Charts } from "./charts.ts";
import { EventLog } from "./event-log.ts";
import { Facts } from "./facts.ts";
import { FaultsView } from "./faults.ts";
import { FollowingView } from "./following.ts";
import { MapView } from "./map.ts";
import { TimeLine } from "./time-line.ts";
import type { View } from "./view.ts";

export interface MigrationPageOptions {
  readonly client: AgentClient;
  readonly id: string;
  readonly onState: (state: FollowState) => void;
  readonly onFailed: (error: unknown) => void;
}

const TICK_MS = 250;

export class MigrationPage implements View {
  readonly element: HTMLElement;
  readonly title: string;
  readonly #options: MigrationPageOptions;
  readonly #heading = make("h2", { text: "Migration", attributes: { tabindex: "-1" } });
  readonly #badge = new Badge();
  readonly #error = make("p", { class: "notice", attributes: { role: "alert" } });
  readonly #history = new MigrationHistory();
  readonly #facts = new Facts();
  readonly #following = new FollowingView();
  readonly #timeLine = new TimeLine();
  readonly #charts = new Charts();
  readonly #faults = new FaultsView();
  readonly #log = new EventLog();
  readonly #map: MapView;
  readonly #actions: Actions;
  readonly #follower: EventFollower;
  readonly #draw = new OncePerFrame(() => {
    this.#show();
  });
  /** Time goes on between the events, too. */
  readonly #tick = window.setInterval(() => {
    if (this.#migration !== null && !isFinal(this.#migration.phase)) this.#draw.request();
  }, TICK_MS);
  #migration: MigrationObject | null = null;

  constructor(options: MigrationPageOptions) {
    const { client, id, onState } = options;
    this.#options = options;
    this.title = `Migration ${id.slice(0, 8)}`;
    this.#map = new MapView(options);
    this.#actions = new Actions(options);
    this.element = this.#layOut();
    this.#follower = new EventFollower({
      client,
      path: eventsPathOf(id),
      pause: pauseFor,
      onState,
      onEvent: (event) => {
        this.#take(event);
      },
    });
    void this.#load();
    void this.#follower.run();
  }

  stop(): void {
    this.#follower.stop();
    this.#draw.stop();
    window.clearInterval(this.#tick);
    this.#charts.stop();
    this.#map.stop();
  }

  #layOut(): HTMLElement {
    const { id } = this.#options;
    const back = make("a", { text: "Overview", attributes: { href: "#/" } });
    const path = make(
      "nav",
      { class: "path", attributes: { "aria-label": "Where this is" } },
      back,
    );
    path.append(make("span", { class: "muted id", text: id }));
    const titles = make("div", { class: "titles" }, this.#heading, this.#badge.element);
    this.#error.hidden = true;
    return make(
      "div",
      { class: "stack" },
      path,
      make("div", { class: "page-head" }, titles, this.#actions.element),
      this.#error,
      this.#facts.element,
      this.#following.element,
      this.#timeLine.element,
      this.#charts.element,
      this.#map.element,
      make("div", { class: "wide" }, this.#log.element, this.#faults.element),
    );
  }

  /** The events of an old migration are no longer kept; the object is. */
  async #load(): Promise<void> {
    const { client, id, onFailed } = this.#options;
    try {
      this.#know(await client.migration(id));
    } catch (error) {
      if (error instanceof AgentProblem && error.status === 404) {
        setText(this.#heading, "No such migration");
        this.#showError("This agent knows no migration of this id. It may have ended long ago.");
      } else onFailed(error);
    }
  }

  #take(event: AgentEvent): void {
    this.#history.add(event);
    if ("migration" in event) this.#know(event.migration);
    if ("migration" in event && isFinal(event.migration.phase)) {
      this.#follower.stop();
      this.#options.onState("ended");
    }
  }

  #know(migration: MigrationObject): void {
    const known = this.#migration;
    this.#migration = known === null ? migration : newerOf(known, migration);
    this.#draw.request();
  }

  #show(): void {
    const migration = this.#migration;
    if (migration === null) return;
    const nowMs = Date.now();
    setText(this.#heading, `${migration.guest} → ${migration.destination}`);
    this.#badge.showPhase(migration.phase);
    if (migration.error === null) this.#error.hidden = true;
    else this.#showError(`${migration.error.code}: ${migration.error.detail}`);
    this.#error.dataset["tone"] = migration.phase === "cancelled" ? "idle" : "bad";
    this.#facts.show(migration, nowMs);
    this.#following.show(migration);
    this.#timeLine.show(migration, nowMs);
    this.#charts.show(this.#history.samples);
    this.#map.show(migration);
    this.#faults.show(migration.faults);
    this.#log.show(this.#history.log);
    this.#actions.show(migration);
  }

  #showError(text: string): void {
    this.#error.hidden = false;
    setText(this.#error, text);
  }
}
