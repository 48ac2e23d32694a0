import { describe, expect, it } from "vitest";
import { QMP_LINE_BYTES_MAX, QmpLineReader } from "./qmp-line-reader.ts";

function readAll(...chunks: (string | Uint8Array)[]): unknown[] {
  const reader = new QmpLineReader();
  const messages: unknown[] = [];
  for (const chunk of chunks) {
    reader.push(typeof chunk === "string" ? Buffer.from(chunk) : chunk, (message) => {
      messages.push(message);
    });
  }
  return messages;
}

function codeOf(act: () => unknown): unknown {
  try {
    act();
  } catch (error) {
    return (error as { code?: unknown }).code;
  }
  return "nothing was thrown";
}

describe("QmpLineReader", () => {
  it("reads several messages of one chunk and keeps the half line for the next", () => {
    const chunks = ['{"a":1}\r\n{"b":"ü"}\r\n{"c"', ":3}\r", "\n"];
    expect(readAll(...chunks)).toEqual([{ a: 1 }, { b: "ü" }, { c: 3 }]);
  });

  it("reads the same messages however the bytes are split", () => {
    const bytes = Buffer.from('{"text":"a€🐧"}\r\n{"b":[1,{"c":null}]}\n');
    const whole = readAll(bytes);
    expect(whole).toHaveLength(2);
    for (let at = 0; at <= bytes.length; at += 1) {
      expect(readAll(bytes.subarray(0, at), bytes.subarray(at))).toEqual(whole);
    }
    expect(readAll(...Array.from(bytes, (byte) => Uint8Array.of(byte)))).toEqual(whole);
  });

  it("does not keep views of a chunk that its owner uses again", () => {
    const reader = new QmpLineReader();
    const messages: unknown[] = [];
    const chunk = Buffer.from('{"a":"b');
    reader.push(chunk, () => undefined);
    chunk.fill(0);
    reader.push(Buffer.from('c"}\n'), (message) => messages.push(message));
    expect(messages).toEqual([{ a: "bc" }]);
  });

  it.each([
    ["text that is not JSON", "{]\r\n"],
    ["an empty line", "\r\n"],
    ["a list", "[]\n"],
    ["a number", "1\n"],
    ["null", "null\n"],
    ["a text", '"QMP"\n'],
    ["a byte order mark", '\uFEFF{"a":1}\n'],
    ["a million brackets", "[".repeat(1_000_000) + "\n"],
  ])("refuses %s as malformed", (_, line) => {
    expect(codeOf(() => readAll(line))).toBe("qmp-malformed");
  });

  it("refuses invalid UTF-8 as malformed", () => {
    const line = Buffer.concat([Buffer.from('{"a":"'), Buffer.of(0xff), Buffer.from('"}\n')]);
    expect(codeOf(() => readAll(line))).toBe("qmp-malformed");
  });

  it("hands over the messages before a malformed line", () => {
    const reader = new QmpLineReader();
    const messages: unknown[] = [];
    const push = (): void => {
      reader.push(Buffer.from('{"a":1}\nx\n{"b":2}\n'), (message) => messages.push(message));
    };
    expect(codeOf(push)).toBe("qmp-malformed");
    expect(messages).toEqual([{ a: 1 }]);
  });

  it("reads a line of exactly the limit and refuses one byte more, in one chunk or in many", () => {
    const line = `{"a":"${"x".repeat(QMP_LINE_BYTES_MAX - 8)}"}`;
    expect(line).toHaveLength(QMP_LINE_BYTES_MAX);
    const halves = (text: string): string[] => [text.slice(0, 1000), text.slice(1000)];
    expect(readAll(line + "\n")).toHaveLength(1);
    expect(readAll(...halves(line + "\n"))).toHaveLength(1);
    const longer = " " + line + "\n";
    expect(codeOf(() => readAll(longer))).toBe("qmp-line-too-long");
    expect(codeOf(() => readAll(...halves(longer)))).toBe("qmp-line-too-long");
  });

  it("refuses an endless line before it holds more than the limit", () => {
    const reader = new QmpLineReader();
    const chunk = Buffer.alloc(64 * 1024, 0x20);
    let chunks = 0;
    const code = codeOf(() => {
      for (; chunks < 1000; chunks += 1) reader.push(chunk, () => undefined);
    });
    expect(code).toBe("qmp-line-too-long");
    expect(chunks).toBe(QMP_LINE_BYTES_MAX / chunk.length);
    expect(reader.backlogBytes).toBeLessThanOrEqual(QMP_LINE_BYTES_MAX);
  });
});
