// The checks that are judged by what the dest has answered, or has not.
import { describe, expect, test } from "vitest";
import { PeerError, type PeerTls } from "@vmferry/agent";
import { ProtocolError } from "@vmferry/protocol";
import { checkAccess } from "./check-access.ts";
import { checkClock } from "./check-clock.ts";
import { checkDestination } from "./check-destination.ts";
import { checkFallback } from "./check-fallback.ts";
import { checkLink } from "./check-link.ts";
import { checkPostCopy } from "./check-post-copy.ts";
import { checkProtocol } from "./check-protocol.ts";
import { checkQemuVersion } from "./check-qemu-version.ts";
import { SessionError } from "../session/session-error.ts";
import type { PeerAnswer } from "./peer-answer.ts";
import { sampleAnswer, sampleGuest } from "./sample-preflight.ts";

const unopened: unknown = {};
const URL = "wss://host-b:7081";

function failedWith(error: unknown): PeerAnswer {
  return { kind: "failed", error };
}

const unreachable = failedWith(
  new PeerError("no dest agent answers", { code: "peer-unreachable", url: URL }),
);
const unauthorized = failedWith(
  new PeerError("it does not accept this agent", { code: "peer-unauthorized", url: URL }),
);
const untrusted = failedWith(
  new PeerError(
    "no dest agent answers: self-signed certificate",
    { code: "peer-unreachable", url: URL },
    { cause: Object.assign(new Error("self-signed"), { code: "DEPTH_ZERO_SELF_SIGNED_CERT" }) },
  ),
);
const tooOld = failedWith(
  new ProtocolError("no common protocol version", {
    ...{ code: "protocol-version-unsupported", ours: "2", theirs: "99" },
  }),
);
const silent: PeerAnswer = { kind: "silent", version: 2, reason: "it is of an older release" };

describe("link", () => {
  test("fails where nobody answers", () => {
    expect(checkLink(unreachable, 300)).toMatchObject({
      status: "fail",
      hint: expect.stringContaining("VMFERRY_PEER_LISTEN") as string,
    });
  });

  test.each([
    ["a token that differs", unauthorized],
    ["another version", tooOld],
    ["silence", silent],
  ])("passes where somebody answers: %s", (_, answer) => {
    expect(checkLink(answer, 300).status).toBe("pass");
  });

  test("warns where round trips alone take more than the downtime", () => {
    expect(checkLink(sampleAnswer({ roundTripMs: 100 }), 300).status).toBe("pass");
    const { status, detail } = checkLink(sampleAnswer({ roundTripMs: 100.5 }), 300);
    expect(status).toBe("warn");
    expect(detail).toContain("302 ms at least, of the 300 ms");
  });
});

describe("access", () => {
  const plain = { url: "ws://host-b:7081", token: "a-token-of-the-peer", tls: null };
  const secure = { ...plain, url: URL, tls: unopened as PeerTls };

  test("fails where the destination wants another token", () => {
    expect(checkAccess(unauthorized, plain)).toMatchObject({
      status: "fail",
      hint: expect.stringContaining("VMFERRY_PEER_TOKEN") as string,
    });
  });

  test("fails where its certificate is not to be trusted, which the link is not blamed for", () => {
    expect(checkAccess(untrusted, secure)).toMatchObject({
      status: "fail",
      hint: expect.stringContaining("VMFERRY_TLS_DIR") as string,
    });
  });

  test("warns where others could listen", () => {
    expect(checkAccess(sampleAnswer(), plain)).toMatchObject({
      status: "warn",
      detail: expect.stringContaining("not encrypted") as string,
    });
    expect(checkAccess(sampleAnswer(), { ...plain, token: null })).toMatchObject({
      status: "warn",
      detail: expect.stringContaining("whoever comes") as string,
    });
  });

  test("passes with certificates at both ends, and on one host without", () => {
    expect(checkAccess(sampleAnswer(), { ...secure, token: null }).status).toBe("pass");
    for (const host of ["127.0.0.1", "localhost", "[::1]"]) {
      const address = { url: `ws://${host}:7081`, token: null, tls: null };
      expect(checkAccess(sampleAnswer(), address).status).toBe("pass");
    }
  });

  test("is not told where nobody answers", () => {
    expect(checkAccess(unreachable, secure).status).toBe("skip");
  });
});

describe("protocol", () => {
  test("fails without a version in common", () => {
    expect(checkProtocol(tooOld)).toMatchObject({
      status: "fail",
      hint: expect.any(String) as string,
    });
  });

  test("passes with one, and is not told by who does not answer", () => {
    expect(checkProtocol(silent).status).toBe("pass");
    expect(checkProtocol(unreachable).status).toBe("skip");
  });
});

describe("qemu-version", () => {
  const older = sampleAnswer({ result: { qemuVersion: "7.2.22" } });

  test("fails under TCG where the destination's is older than 10", () => {
    expect(checkQemuVersion(sampleGuest(), older)).toMatchObject({
      status: "fail",
      detail: expect.stringContaining("7.2 at the destination") as string,
    });
  });

  test("fails under TCG where the source's is", () => {
    expect(checkQemuVersion(sampleGuest({ qemuMajor: 9 }), sampleAnswer())).toMatchObject({
      status: "fail",
      detail: expect.stringContaining("At the source") as string,
    });
  });

  test("warns with KVM where the destination's is the older one", () => {
    const guest = sampleGuest({ accel: "kvm" });
    expect(checkQemuVersion(guest, older).status).toBe("warn");
    expect(checkQemuVersion(guest, sampleAnswer()).status).toBe("pass");
  });

  test("is not told where that is not known", () => {
    expect(checkQemuVersion(sampleGuest(), silent).status).toBe("skip");
    const unknown = sampleAnswer({ result: { qemuVersion: "" } });
    expect(checkQemuVersion(sampleGuest(), unknown).status).toBe("skip");
  });
});

describe("clock", () => {
  test.each([
    [3600_000, "3600.0 s ahead of"],
    [-2500, "2.5 s behind"],
  ])("warns where the destination's is %d ms off", (clockAheadMs, text) => {
    expect(checkClock(sampleAnswer({ clockAheadMs }))).toMatchObject({
      status: "warn",
      detail: expect.stringContaining(text) as string,
    });
  });

  test("passes where the difference may be the link's", () => {
    expect(checkClock(sampleAnswer({ clockAheadMs: 2400, roundTripMs: 500 })).status).toBe("pass");
    expect(checkClock(silent).status).toBe("skip");
  });
});

describe("post-copy", () => {
  const refused = sampleAnswer({ result: { postCopyRefusal: "Userfaultfd not available" } });
  const requested = { mode: "post-copy", onStall: "throttle" } as const;

  test("fails where it was asked for and the destination cannot", () => {
    expect(checkPostCopy(requested, refused)).toMatchObject({
      status: "fail",
      detail: expect.stringContaining("Userfaultfd") as string,
      hint: expect.stringContaining("userfaultfd") as string,
    });
    expect(checkPostCopy(requested, sampleAnswer()).status).toBe("pass");
  });

  test("warns where it may become necessary", () => {
    const maybe = { mode: "auto", onStall: "post-copy" } as const;
    expect(checkPostCopy(maybe, refused).status).toBe("warn");
  });

  test("does not matter where nobody wants it", () => {
    expect(checkPostCopy({ mode: "auto", onStall: "throttle" }, refused).status).toBe("skip");
    expect(checkPostCopy({ mode: "pre-copy", onStall: "post-copy" }, refused).status).toBe("skip");
  });
});

describe("fallback", () => {
  const wanted = { fallback: "shared-filesystem" } as const;
  const seen = (status: "pass" | "warn", hint: string | null): PeerAnswer =>
    sampleAnswer({
      result: { checks: [{ name: "shared-directory", status, detail: "As it is seen.", hint }] },
    });

  test("fails where it was asked for and both agents do not see one directory", () => {
    expect(checkFallback(wanted, seen("warn", "Mount one."))).toEqual({
      status: "fail",
      detail: "As it is seen.",
      hint: "Mount one.",
    });
    expect(checkFallback(wanted, seen("pass", null)).status).toBe("pass");
  });

  test("does not matter where nobody wants it, and is not told by who does not answer", () => {
    expect(checkFallback({ fallback: "none" }, seen("warn", null)).status).toBe("skip");
    expect(checkFallback(wanted, unreachable).status).toBe("skip");
  });
});

describe("destination", () => {
  test("warns where its agent does not say what it thinks of the guest", () => {
    expect(checkDestination(silent)).toMatchObject({
      status: "warn",
      detail: expect.stringContaining("older release") as string,
    });
  });

  test("warns where it turns this agent away for a reason of its own", () => {
    const refused = failedWith(new SessionError("no journal", { code: "journal-failed" }));
    expect(checkDestination(refused)).toMatchObject({
      status: "warn",
      detail: expect.stringContaining("no journal") as string,
    });
  });

  test("passes where it does, and is skipped where it cannot be asked", () => {
    expect(checkDestination(sampleAnswer()).status).toBe("pass");
    expect(checkDestination(unreachable).status).toBe("skip");
  });
});
