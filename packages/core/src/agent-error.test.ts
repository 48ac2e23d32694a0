import { describe, expect, test } from "vitest";
import { AgentError, messageOf } from "./agent-error.ts";
import { assert, InvariantError } from "./assert.ts";
import { unreachable } from "./unreachable.ts";

class LinkError extends AgentError<
  { readonly code: "link-lost"; readonly afterMs: number } | { readonly code: "link-slow" }
> {}

describe("an expected failure", () => {
  test("carries its data, its code, its cause and the name of its class", () => {
    const cause = new Error("ECONNRESET");
    const error = new LinkError("the link is gone", { code: "link-lost", afterMs: 5 }, { cause });
    expect(error).toBeInstanceOf(Error);
    expect(error.name).toBe("LinkError");
    expect(error.message).toBe("the link is gone");
    expect(error.code).toBe("link-lost");
    expect(error.detail).toEqual({ code: "link-lost", afterMs: 5 });
    expect(error.cause).toBe(cause);
  });
});

test.each([
  [new Error("text"), "text"],
  [new LinkError("slow", { code: "link-slow" }), "slow"],
  ["text", "text"],
  [undefined, "undefined"],
  [null, "null"],
  [7, "7"],
])("the message of whatever was thrown is text: %o", (thrown, message) => {
  expect(messageOf(thrown)).toBe(message);
});

describe("an invariant", () => {
  test("that holds says nothing", () => {
    expect(() => {
      assert(true, "one is one");
    }).not.toThrow();
  });

  test("that does not hold is our bug, and no expected failure", () => {
    const act = (): void => {
      assert(false, "one is two");
    };
    expect(act).toThrow(new InvariantError("invariant broken: one is two"));
    expect(new InvariantError("x")).not.toBeInstanceOf(AgentError);
    expect(new InvariantError("x").name).toBe("InvariantError");
  });

  test("broken by a value that cannot be names the value", () => {
    expect(() => unreachable({ phase: "limbo" } as never)).toThrow(
      'unreachable: {"phase":"limbo"}',
    );
  });
});
