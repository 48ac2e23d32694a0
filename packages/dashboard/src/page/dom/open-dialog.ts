/** A question that keeps the rest of the page out of reach until it is answered. */
import { make, makeButton } from "./make.ts";

export interface DialogOptions {
  readonly title: string;
  readonly content: readonly Node[];
  /** The button that does it; the other one, which has the focus, does nothing. */
  readonly action: string;
  readonly refusal: string;
  readonly isDangerous?: boolean;
}

let dialogs = 0;

/** Resolves with true when the action was chosen; Escape is a refusal. */
export function openDialog(options: DialogOptions): Promise<boolean> {
  const { title, content, action, refusal, isDangerous = false } = options;
  const id = `dialog-${++dialogs}`;
  const kind = isDangerous ? "danger" : "primary";
  const submit = make("button", { text: action, class: kind, attributes: { type: "submit" } });
  const dialog = make("dialog", { attributes: { "aria-labelledby": id } });
  const refuse = makeButton(refusal, () => {
    dialog.close();
  });
  const form = make(
    "form",
    { attributes: { method: "dialog" } },
    make("h2", { text: title, attributes: { id } }),
    ...content,
    make("div", { class: "buttons" }, refuse, submit),
  );
  dialog.append(form);
  document.body.append(dialog);
  return new Promise((resolve) => {
    let chosen = false;
    form.addEventListener("submit", (event) => {
      event.preventDefault();
      chosen = true;
      dialog.close();
    });
    dialog.addEventListener("close", () => {
      dialog.remove();
      resolve(chosen);
    });
    dialog.showModal();
    if (isDangerous) refuse.focus();
  });
}
