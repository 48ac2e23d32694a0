/** `text` without what a terminal would obey: an agent quotes QEMU's words and those of its peer. */
export function printable(text: string): string {
  // Line breaks are the only control characters that carry no command.
  return text.replace(/[\p{Cc}\p{Cf}]/gu, (character) => (character === "\n" ? "\n" : "\ufffd"));
}
