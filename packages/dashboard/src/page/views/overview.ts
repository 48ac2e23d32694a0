/** All guests and migrations of this agent, as they change. */
import type { AgentClient } from "../api/agent-client.ts";
import { EventFollower, pauseFor, type FollowState } from "../api/event-follower.ts";
import { make } from "../dom/make.ts";
import { OncePerFrame } from "../dom/once-per-frame.ts";
import { AgentState } from "../state/agent-state.ts";
import { GuestList } from "./guest-list.ts";
import { MigrationList } from "./migration-list.ts";
import type { View } from "./view.ts";

export interface OverviewOptions {
  readonly client: AgentClient;
  readonly onState: (state: FollowState) => void;
  readonly onFailed: (error: unknown) => void;
}

export function openOverview({ client, onState, onFailed }: OverviewOptions): View {
  const guests = new GuestList();
  const migrations = new MigrationList();
  const draw = new OncePerFrame(() => {
    guests.show(state.guests);
    migrations.show(state.migrations);
  });
  const state = new AgentState(() => {
    draw.request();
  });
  const loadGuests = async (): Promise<void> => {
    state.setGuests(await client.guests());
  };
  const follower = new EventFollower({
    client,
    path: "/v1/events",
    pause: pauseFor,
    // What happens while the lists are loaded comes as events.
    onState: (now) => {
      onState(now);
      if (now !== "live") return;
      loadGuests().catch(onFailed);
      client.migrations().then((list) => {
        state.setMigrations(list);
      }, onFailed);
    },
    onEvent: (event) => {
      if (event.type === "guest.state") loadGuests().catch(onFailed);
      else state.apply(event);
    },
  });
  void follower.run();
  const heading = make("h2", { text: "Overview", class: "quiet", attributes: { tabindex: "-1" } });
  const element = make("div", { class: "stack" }, heading, migrations.element, guests.element);
  return {
    element,
    title: "Overview",
    stop: () => {
      follower.stop();
      draw.stop();
    },
  };
}
