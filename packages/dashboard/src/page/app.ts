/** Which view is shown: by the address behind `#`, and by whether the agent lets this tab in. */
import { AgentClient, AgentProblem } from "./api/agent-client.ts";
import type { FollowState } from "./api/event-follower.ts";
import { forgetToken, keepToken, readToken } from "./api/token-store.ts";
import { make, setText } from "./dom/make.ts";
import { MigrationPage } from "./views/migration-page.ts";
import { openOverview } from "./views/overview.ts";
import { makeTokenPanel } from "./views/token-panel.ts";
import type { View } from "./views/view.ts";

export interface AppPlaces {
  readonly main: HTMLElement;
  readonly connection: HTMLElement;
  readonly forgetToken: HTMLElement;
}

const CONNECTION_TEXTS = {
  connecting: "connecting…",
  live: "live",
  ended: "ended",
  unauthorized: "read-only: no token",
} as const satisfies Record<FollowState, string>;

export class App {
  readonly #places: AppPlaces;
  readonly #client = new AgentClient(readToken);
  readonly #failure = make("p", { class: "notice toast", attributes: { role: "alert" } });
  readonly #baseTitle = document.title;
  #view: View | null = null;

  constructor(places: AppPlaces) {
    this.#places = places;
    this.#failure.hidden = true;
    places.main.before(this.#failure);
    places.forgetToken.addEventListener("click", () => {
      forgetToken();
      this.#askForToken(false);
    });
    window.addEventListener("hashchange", () => {
      this.#open({ isMoved: true });
    });
  }

  start(): void {
    this.#open({ isMoved: false });
  }

  #open({ isMoved }: { readonly isMoved: boolean }): void {
    const id = /^#\/migrations\/([^/]+)$/.exec(location.hash)?.[1];
    const common = {
      client: this.#client,
      onState: (state: FollowState) => {
        this.#showConnection(state);
      },
      onFailed: (error: unknown) => {
        this.#failed(error);
      },
    };
    this.#failure.hidden = true;
    this.#places.forgetToken.hidden = readToken() === null;
    this.#mount(
      () =>
        id === undefined ? openOverview(common) : new MigrationPage({ ...common, id: decoded(id) }),
      isMoved,
    );
  }

  #mount(make: () => View, isMoved: boolean): void {
    this.#view?.stop();
    this.#view = make();
    document.title = `${this.#view.title} · ${this.#baseTitle}`;
    this.#places.main.replaceChildren(this.#view.element);
    // Who moved here by keyboard goes on from the heading; who has just opened the page, from its top.
    if (isMoved) this.#view.element.querySelector("h2")?.focus();
  }

  #showConnection(state: FollowState): void {
    setText(this.#places.connection, CONNECTION_TEXTS[state]);
    this.#places.connection.dataset["state"] = state;
    if (state === "live") this.#failure.hidden = true;
    if (state === "unauthorized") this.#askForToken(readToken() !== null);
  }

  #askForToken(refused: boolean): void {
    forgetToken();
    this.#places.forgetToken.hidden = true;
    setText(this.#places.connection, CONNECTION_TEXTS.unauthorized);
    this.#places.connection.dataset["state"] = "unauthorized";
    const onToken = (token: string): void => {
      keepToken(token);
      this.#open({ isMoved: true });
    };
    this.#mount(() => makeTokenPanel({ refused, onToken }), false);
  }

  #failed(error: unknown): void {
    // The stream of events meets the same refusal, and asks for a token.
    if (error instanceof AgentProblem && error.status === 401) return;
    this.#failure.hidden = false;
    setText(this.#failure, error instanceof Error ? error.message : String(error));
  }
}

function decoded(text: string): string {
  try {
    return decodeURIComponent(text);
  } catch {
    return text;
  }
}
