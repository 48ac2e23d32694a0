import { constants } from "node:os";
import { describe, expect, it } from "vitest";
import { blockFailure } from "./block-failure.ts";

const request = { operation: "write", offset: 4096 };

function systemError(errno: number): Error {
  return Object.assign(new Error("of the system"), { errno: -errno });
}

describe("blockFailure", () => {
  it.each([
    ["ENOSPC", "ENOSPC"],
    ["EDQUOT", "ENOSPC"],
    ["EROFS", "EPERM"],
    ["EACCES", "EPERM"],
    ["EPERM", "EPERM"],
    ["EIO", "EIO"],
    ["EBADF", "EIO"],
    ["EFBIG", "EIO"],
    ["EINVAL", "EIO"],
  ] as const)("tells the guest of %s as %s", (name, errno) => {
    const cause = systemError(constants.errno[name]);
    const failure = blockFailure(request, cause);
    expect(failure.detail).toEqual({ code: "block-io", errno, ...request });
    expect(failure.cause).toBe(cause);
    expect(failure.message).toBe("write at 4096 failed: of the system");
  });

  it("tells the guest of anything else as EIO", () => {
    expect(blockFailure(request, new Error("x")).detail.errno).toBe("EIO");
    expect(blockFailure({ ...request, offset: null }, "x").detail.offset).toBeNull();
  });
});
