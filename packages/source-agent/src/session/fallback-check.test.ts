import { expect, test } from "vitest";
import { assertFallback } from "./fallback-check.ts";

test.each(["auto", "post-copy"] as const)(
  "a fallback may be had with mode %s and a share",
  (mode) => {
    expect(() => {
      assertFallback({ fallback: "shared-filesystem", mode }, "/shared");
    }).not.toThrow();
  },
);

test("no fallback needs no share", () => {
  expect(() => {
    assertFallback({ fallback: "none", mode: "pre-copy" }, null);
  }).not.toThrow();
});

test.each([
  ["without a share", "auto", null, "VMFERRY_SHARED_DIR"],
  ["where no memory follows", "pre-copy", "/shared", '"pre-copy"'],
] as const)("a fallback is refused %s, with what to do", (_what, mode, sharedDir, hint) => {
  const asked = (): void => {
    assertFallback({ fallback: "shared-filesystem", mode }, sharedDir);
  };
  expect(asked).toThrow(expect.objectContaining({ code: "fallback-unavailable" }));
  expect(asked).toThrow(hint);
});
