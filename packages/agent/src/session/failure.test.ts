import { describe, expect, test } from "vitest";
import { AgentError } from "@vmferry/core";
import { isProblemCode, violation } from "@vmferry/protocol";
import { QmpError, ReturnPathDecoder, StreamDecoder, type QmpErrorDetail } from "@vmferry/qemu";
import { PeerError } from "../peer/peer-error.ts";
import { ProblemError } from "../problem-error.ts";
import { failureOf } from "./failure.ts";

function thrownBy(step: () => void): unknown {
  try {
    step();
  } catch (error) {
    return error;
  }
  throw new Error("nothing was thrown");
}

const ignore = (): void => undefined;
const handler = {
  verbatim: ignore,
  ramStart: ignore,
  page: ignore,
  zeroPage: ignore,
  partEnd: ignore,
  ramEnd: ignore,
  deviceState: ignore,
};

describe("what an error means to whoever asked for the migration", () => {
  test("a stream that is none is QEMU's fault at the source, and the peer's at the dest", () => {
    const error = thrownBy(() => {
      new StreamDecoder(handler).push(Buffer.from("no stream of QEMU"));
    });
    expect(failureOf(error, "source").code).toBe("stream-unsupported");
    expect(failureOf(error, "dest").code).toBe("protocol-violation");
  });

  test("a stream that ends too early is that on both sides", () => {
    const error = thrownBy(() => {
      new StreamDecoder(handler).end();
    });
    expect(failureOf(error, "source").code).toBe("stream-truncated");
    expect(failureOf(error, "dest").code).toBe("stream-truncated");
  });

  test("a return path that is none comes from the dest's QEMU, whoever meets it", () => {
    const error = thrownBy(() => {
      new ReturnPathDecoder(ignore, { bitmapBytesMax: 0 }).push(Buffer.alloc(64, 0xff));
    });
    expect(failureOf(error, "source").code).toBe("dest-qemu-failed");
    expect(failureOf(error, "dest").code).toBe("dest-qemu-failed");
  });

  test("a monitor that is gone is a QEMU that died, any other trouble with it a failure", () => {
    const closed = new QmpError("closed", { code: "qmp-closed" } as QmpErrorDetail);
    const timedOut = new QmpError("slow", { code: "qmp-timeout" } as QmpErrorDetail);
    expect(failureOf(closed, "source").code).toBe("source-qemu-died");
    expect(failureOf(closed, "dest").code).toBe("dest-qemu-died");
    expect(failureOf(timedOut, "source").code).toBe("source-qemu-failed");
    expect(failureOf(timedOut, "dest").code).toBe("dest-qemu-failed");
  });

  test.each([
    new PeerError("lost", { code: "peer-lost", closeCode: null }),
    new PeerError("stopped", { code: "agent-stopped" }),
    violation("something"),
    new ProblemError("no", { code: "machine-type-unsupported" }),
  ])("an error with a code of the catalogue keeps it: $code", (error) => {
    expect(failureOf(error, "dest")).toEqual({ code: error.code, detail: error.message });
  });

  test.each([
    new AgentError("odd", { code: "not-in-the-catalogue" }),
    new AgentError("odd", { code: "toString" }),
    new TypeError("x is not a function"),
    "a string",
    undefined,
  ])("anything else is our own bug: %s", (error) => {
    const { code, detail } = failureOf(error, "source");
    expect(code).toBe("internal");
    expect(isProblemCode(code)).toBe(true);
    expect(typeof detail).toBe("string");
  });
});
