import { expect, test } from "vitest";
import { BlockError, type BlockErrno } from "../block-error.ts";
import { nbdErrnoOf } from "./nbd-errno.ts";

test.each<[BlockErrno, number]>([
  ["EPERM", 1],
  ["EIO", 5],
  ["EINVAL", 22],
  ["ENOSPC", 28],
  ["ENOTSUP", 95],
  ["ESHUTDOWN", 108],
])("a device's %s is the protocol's %i", (errno, number) => {
  const error = new BlockError("test", {
    code: "block-io",
    errno,
    operation: "write",
    offset: null,
  });
  expect(nbdErrnoOf(error)).toBe(number);
});

test.each([new Error("bug"), new RangeError("offset"), "text", undefined, { errno: "ENOSPC" }])(
  "whatever else a device rejects with is EIO: %o",
  (error) => {
    expect(nbdErrnoOf(error)).toBe(5);
  },
);
