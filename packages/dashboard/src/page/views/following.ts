/** While a guest that runs at the dest still lacks something: how much, and who has it. */
import type { MigrationObject } from "@vmferry/protocol";
import { make, makeSection, setText } from "../dom/make.ts";
import { formatBytes } from "../format.ts";
import { followingOf, type Following } from "../state/following.ts";

const HOST_TEXTS = {
  needed: "The source's host is needed until everything has come.",
  unknown:
    "All of the memory is on the share. Whether a disk needs the source's host is not known here.",
  dispensable: "All of the memory is on the share: the source's host may be lost now.",
} as const;
const DISKS_TEXT =
  "All of the memory is on the share; the disks need the source's host until they have come.";

export class FollowingView {
  readonly element: HTMLElement;
  readonly #facts = new Map<string, { readonly row: HTMLElement; readonly value: HTMLElement }>();
  /** Read aloud when it changes; the amounts, which change all the time, are not. */
  readonly #host = make("p", { attributes: { role: "status" } });

  constructor() {
    const list = make("dl", { class: "facts" });
    for (const label of ["Memory", "Disks", "File on the share"]) {
      const value = make("dd");
      const row = make("div", {}, make("dt", { text: label }), value);
      this.#facts.set(label, { row, value });
      list.append(row);
    }
    this.element = makeSection("Still to follow", list, this.#host);
    this.element.hidden = true;
  }

  show(migration: MigrationObject): void {
    const following = followingOf(migration);
    this.element.hidden = following === null;
    if (following === null) return;
    const { memoryBytes, diskBytes, share } = following;
    this.#fact("Memory", formatBytes(memoryBytes));
    this.#fact("Disks", migration.disks.length === 0 ? null : formatBytes(diskBytes));
    this.#fact("File on the share", share);
    setText(this.#host, hostText(following));
  }

  /** Null: there is nothing to say of it. */
  #fact(label: string, text: string | null): void {
    const { row, value } = this.#facts.get(label)!;
    row.hidden = text === null;
    setText(value, text ?? "");
  }
}

function hostText({ sourceHost, share }: Following): string {
  return sourceHost === "needed" && share === "complete" ? DISKS_TEXT : HOST_TEXTS[sourceHost];
}
