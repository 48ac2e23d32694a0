/** One event is a few KiB. */
const LINE_LENGTH_MAX = 4 * 1024 * 1024;

/** Text in pieces of any size; whole lines come out, without their ends. */
export class LineSplitter {
  #begun = "";

  push(text: string): readonly string[] {
    const lines = (this.#begun + text).split("\n");
    this.#begun = lines.pop() ?? "";
    if (this.#begun.length > LINE_LENGTH_MAX) throw new Error("a line of the stream is too long");
    return lines.filter((line) => line !== "");
  }
}
