/** What an operator can do to a migration. Each is asked about once more, and says how it went. */
import type { MigrationObject } from "@vmferry/protocol";
import type { AgentClient } from "../api/agent-client.ts";
import { make, makeButton, setText } from "../dom/make.ts";
import { openDialog } from "../dom/open-dialog.ts";
import { isFinal } from "../state/phases.ts";
import { makeLimitsForm } from "./limits-form.ts";

export interface ActionsOptions {
  readonly client: AgentClient;
  readonly id: string;
  readonly onFailed: (error: unknown) => void;
}

export class Actions {
  readonly element = make("div", { class: "actions" });
  readonly #options: ActionsOptions;
  readonly #buttons = make("div", { class: "buttons" });
  readonly #note = make("p", { class: "hint", attributes: { role: "status" } });
  readonly #cancel = makeButton("Cancel migration", () => void this.#askToCancel(), "danger");
  readonly #postCopy = makeButton("Switch to post-copy", () => void this.#askToSwitch());
  readonly #limits = makeButton("Change limits", () => void this.#askForLimits());
  #migration: MigrationObject | null = null;
  /** How the last action went. */
  #outcome = "";
  #offersPostCopy = false;
  #isAsked = false;

  constructor(options: ActionsOptions) {
    this.#options = options;
    this.#buttons.append(this.#limits, this.#postCopy, this.#cancel);
    this.element.append(this.#buttons, this.#note);
    this.#postCopy.hidden = true;
  }

  show(migration: MigrationObject): void {
    this.#migration = migration;
    const { role, phase, mayCancel } = migration;
    const isOver = isFinal(phase);
    this.#buttons.hidden = role === "dest" || isOver;
    this.#cancel.disabled = !mayCancel;
    this.#limits.disabled = !mayCancel;
    this.#postCopy.hidden = !this.#offersPostCopy;
    this.#postCopy.disabled = phase !== "pre-copy";
    setText(this.#note, whyNot(migration) ?? this.#outcome);
    if (role === "source" && !isOver && !this.#isAsked) void this.#askWhatIsOffered();
  }

  async #askWhatIsOffered(): Promise<void> {
    this.#isAsked = true;
    try {
      this.#offersPostCopy = await this.#options.client.offersPostCopy(this.#options.id);
    } catch {
      // The button stays away; whatever is wrong shows elsewhere.
    }
    if (this.#migration !== null) this.show(this.#migration);
  }

  async #askToCancel(): Promise<void> {
    const guest = this.#migration?.guest ?? "";
    const isSure = await openDialog({
      title: "Cancel this migration?",
      content: [
        make("p", { text: `The guest ${guest} runs on here, and what has been sent is dropped.` }),
      ],
      action: "Cancel migration",
      refusal: "Let it go on",
      isDangerous: true,
    });
    const { client, id } = this.#options;
    if (isSure) await this.#do("Cancelled.", () => client.cancel(id));
  }

  async #askToSwitch(): Promise<void> {
    const isSure = await openDialog({
      title: "Switch to post-copy now?",
      content: [
        make("p", {
          text: "The guest goes to the destination at once, and fetches from here what it lacks. From then on it cannot come back, and a lost link makes it wait.",
        }),
      ],
      action: "Switch to post-copy",
      refusal: "Stay with pre-copy",
      isDangerous: true,
    });
    const { client, id } = this.#options;
    if (isSure) await this.#do("Switching to post-copy.", () => client.switchToPostCopy(id));
  }

  async #askForLimits(): Promise<void> {
    const form = makeLimitsForm();
    const isSure = await openDialog({
      title: "Change limits",
      content: form.content,
      action: "Apply limits",
      refusal: "Leave as they are",
    });
    const limits = isSure ? form.read() : null;
    const { client, id } = this.#options;
    if (limits !== null) await this.#do("Limits changed.", () => client.setLimits(id, limits));
  }

  async #do(done: string, action: () => Promise<unknown>): Promise<void> {
    this.#tell("Asking the agent…");
    try {
      await action();
      this.#tell(done);
    } catch (error) {
      this.#tell("");
      this.#options.onFailed(error);
    }
  }

  #tell(outcome: string): void {
    this.#outcome = outcome;
    setText(this.#note, outcome);
  }
}

/** Why nothing can be done; null where something can, or where there is nothing to be done. */
function whyNot({ role, phase, mayCancel }: MigrationObject): string | null {
  if (isFinal(phase)) return null;
  if (role === "dest") return "Migrations are steered at the source: nothing can be changed here.";
  return mayCancel ? null : "The guest has been handed over: only the destination can answer now.";
}
