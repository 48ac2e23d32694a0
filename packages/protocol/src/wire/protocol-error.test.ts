import { describe, expect, test } from "vitest";
import { CloseCode, closeCodeOf, ProtocolError, violation } from "./protocol-error.ts";

describe("close codes", () => {
  test("are all different and in the range that RFC 6455 leaves to applications", () => {
    const codes = Object.values(CloseCode);
    expect(new Set(codes).size).toBe(codes.length);
    for (const code of codes) expect(code >= 4000 && code <= 4999, `${code}`).toBe(true);
  });

  test("say which kind of error ended the connection", () => {
    const corrupt = new ProtocolError("x", { code: "frame-corrupt", sequence: "0" });
    const version = { code: "protocol-version-unsupported", ours: "1", theirs: "2" } as const;
    expect(closeCodeOf(violation("a rule"))).toBe(CloseCode.PROTOCOL_VIOLATION);
    expect(closeCodeOf(corrupt)).toBe(CloseCode.FRAME_CORRUPT);
    expect(closeCodeOf(new ProtocolError("x", version))).toBe(CloseCode.VERSION_UNSUPPORTED);
  });

  test("of everything that is no fault of the peer's protocol is SESSION_ENDED", () => {
    for (const error of [new Error("x"), new TypeError("x"), "text", undefined, null]) {
      expect(closeCodeOf(error)).toBe(CloseCode.SESSION_ENDED);
    }
  });
});

test("a violation names the broken rule, and keeps what it was found by as its cause", () => {
  const cause = new Error("found");
  const error = violation("frame version", cause);
  expect(error.detail).toEqual({ code: "protocol-violation", rule: "frame version" });
  expect(error.message).toBe("the peer broke the protocol: frame version");
  expect(error.cause).toBe(cause);
  expect("cause" in violation("frame version")).toBe(false);
});
