// Server-Sent Events, as far as the agents send them. Text comes in pieces of any size; a message
// ends with an empty line, and a comment (the agents' heartbeat) is no message.

const MESSAGE_CHARS_MAX = 1 << 20;

export interface StreamMessage {
  /** What `Last-Event-ID` says to go on after this message; null before the first id came. */
  readonly lastEventId: string | null;
  readonly data: string;
}

export class EventStreamParser {
  #begun = "";
  #data: string[] = [];
  #dataChars = 0;
  #lastEventId: string | null = null;

  /** The messages that `text` completes. Throws where one grows beyond a mebibyte. */
  push(text: string): StreamMessage[] {
    const lines = (this.#begun + text).split("\n");
    this.#begun = lines.pop() ?? "";
    const messages: StreamMessage[] = [];
    for (const line of lines) {
      const message = this.#takeLine(line.endsWith("\r") ? line.slice(0, -1) : line);
      if (message !== null) messages.push(message);
    }
    if (this.#begun.length + this.#dataChars > MESSAGE_CHARS_MAX) {
      throw new RangeError(`an event of more than ${MESSAGE_CHARS_MAX} characters`);
    }
    return messages;
  }

  #takeLine(line: string): StreamMessage | null {
    if (line === "") return this.#endMessage();
    const colon = line.indexOf(":");
    const name = colon === -1 ? line : line.slice(0, colon);
    const value = colon === -1 ? "" : line.slice(colon + 1).replace(/^ /, "");
    if (name === "id") this.#lastEventId = value;
    if (name === "data") {
      this.#data.push(value);
      this.#dataChars += value.length;
    }
    return null;
  }

  #endMessage(): StreamMessage | null {
    if (this.#data.length === 0) return null;
    const message = { lastEventId: this.#lastEventId, data: this.#data.join("\n") };
    this.#data = [];
    this.#dataChars = 0;
    return message;
  }
}
