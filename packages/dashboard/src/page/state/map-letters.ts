/** The letters of a map (`MapLetter` of the API), in the order of the legend. */
import type { MapLetter } from "@vmferry/protocol";

export interface LetterKind {
  readonly letter: MapLetter;
  readonly label: string;
  /** Name of the style sheet's variable. */
  readonly color: string;
}

export const LETTER_KINDS: readonly LetterKind[] = [
  { letter: "w", label: "not sent", color: "--map-waiting" },
  { letter: "s", label: "sent", color: "--map-sent" },
  { letter: "z", label: "sent, zero", color: "--map-zero" },
  { letter: "d", label: "dirty", color: "--map-dirty" },
  { letter: "h", label: "hot", color: "--map-hot" },
  { letter: "k", label: "held", color: "--map-held" },
  { letter: "m", label: "missing", color: "--map-missing" },
  { letter: "f", label: "faulted", color: "--map-faulted" },
];

/** The part of the cells that each letter has, of those that occur. */
export function sharesOf(
  cells: string,
): readonly { readonly kind: LetterKind; readonly share: number }[] {
  const counts = new Map<string, number>();
  for (const letter of cells) counts.set(letter, (counts.get(letter) ?? 0) + 1);
  return LETTER_KINDS.flatMap((kind) => {
    const count = counts.get(kind.letter);
    return count === undefined ? [] : [{ kind, share: count / cells.length }];
  });
}
