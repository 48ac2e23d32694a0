/** What is shown when the agent asks for a token that this tab does not have. */
import { make } from "../dom/make.ts";
import type { View } from "./view.ts";

export interface TokenPanelOptions {
  /** A token was given and refused. */
  readonly refused: boolean;
  readonly onToken: (token: string) => void;
}

export function makeTokenPanel({ refused, onToken }: TokenPanelOptions): View {
  const input = make("input", {
    attributes: {
      id: "token",
      type: "password",
      autocomplete: "off",
      spellcheck: "false",
      required: "",
      "aria-describedby": "token-hint",
    },
  });
  const submit = make("button", {
    text: "Use token",
    class: "primary",
    attributes: { type: "submit" },
  });
  const form = make(
    "form",
    { class: "token-form" },
    make("label", { text: "API token", attributes: { for: "token" } }),
    make("div", { class: "row" }, input, submit),
    make("p", {
      class: "hint",
      text: "It stays in this tab until the tab is closed, and is sent to this agent only.",
      attributes: { id: "token-hint" },
    }),
  );
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    if (input.value.trim() !== "") onToken(input.value.trim());
  });
  const notice = refused
    ? "The agent refuses this token."
    : "Read-only: this agent asks for a token, and this tab has none.";
  const element = make(
    "div",
    { class: "narrow" },
    make("h2", { text: "Token needed", attributes: { tabindex: "-1" } }),
    make("p", { class: "notice", text: notice, attributes: { role: "alert" } }),
    make("p", {
      text: "Without it the agent tells nothing about guests and migrations, and nothing can be changed here. It is the one that VMFERRY_API_TOKEN names.",
    }),
    form,
  );
  return { element, title: "Token needed", stop: () => undefined };
}
