import { describe, expect, test } from "vitest";
import { decodeControl, encodeControl } from "./control-codec.ts";
import type { ControlMessageOf } from "./control-messages.ts";
import { agree, FEATURES, ourHello } from "./hello.ts";
import { PROTOCOL_VERSION, PROTOCOL_VERSION_MIN } from "./limits.ts";
import { closeCodeOf, ProtocolError } from "./protocol-error.ts";

type Hello = ControlMessageOf<"hello">;

function hello([versionMin, version]: readonly [number, number], more?: Partial<Hello>): Hello {
  const software = `vmferry ${version}`;
  return { kind: "hello", version, versionMin, features: [], software, incarnation: "i", ...more };
}

function refusal(ours: Hello, theirs: Hello): ProtocolError {
  try {
    agree(ours, theirs);
  } catch (error) {
    if (error instanceof ProtocolError) return error;
    throw error;
  }
  throw new Error("they agreed");
}

describe("the version", () => {
  test.each<[string, readonly [number, number], readonly [number, number], number]>([
    ["of two equals is theirs", [1, 1], [1, 1], 1],
    ["of two ranges is the newest that both speak", [1, 3], [2, 5], 3],
    ["may be the oldest of one side and the newest of the other", [1, 3], [3, 5], 3],
    ["lies in the range that is inside the other", [1, 9], [4, 5], 5],
  ])("%s, whichever side asks", (_, ours, theirs, version) => {
    expect(agree(hello(ours), hello(theirs)).version).toBe(version);
    expect(agree(hello(theirs), hello(ours)).version).toBe(version);
  });

  test.each<[readonly [number, number], readonly [number, number], string, string]>([
    [[1, 1], [2, 2], "1", "2"],
    [[1, 3], [4, 9], "1 to 3", "4 to 9"],
    // A hello that contradicts itself has no version at all.
    [[1, 3], [3, 2], "1 to 3", "3 to 2"],
  ])("%j and %j have none in common, and both sides say so", (one, other, oneText, otherText) => {
    const error = refusal(hello(one), hello(other));
    expect(error.detail).toEqual({
      code: "protocol-version-unsupported",
      ours: oneText,
      theirs: otherText,
    });
    expect(error.message).toBe(
      `no common protocol version: we speak ${oneText}, ` +
        `the peer (vmferry ${other[1]}) speaks ${otherText}; upgrade the older agent`,
    );
    expect(closeCodeOf(error)).toBe(4002);
    expect(refusal(hello(other), hello(one)).detail).toMatchObject({ theirs: oneText });
  });
});

describe("features", () => {
  test("are those that both sides name, whichever side asks", () => {
    const ours = hello([1, 1], { features: ["zstd", "faults", "zstd"] });
    const theirs = hello([1, 1], { features: ["later", "faults", "zstd"] });
    expect([...agree(ours, theirs).features].sort()).toEqual(["faults", "zstd"]);
    expect([...agree(theirs, ours).features].sort()).toEqual(["faults", "zstd"]);
  });

  test("that only one side names are not used", () => {
    const plain = hello([1, 1]);
    expect(agree(plain, hello([1, 1], { features: ["zstd"] })).features.size).toBe(0);
    expect(agree(hello([1, 1], { features: ["zstd"] }), plain).features.size).toBe(0);
  });
});

describe("our hello", () => {
  const ours = ourHello({ software: "vmferry 0.1.0", incarnation: "abc" });

  test("names what this build speaks, and travels", () => {
    expect(ours).toEqual({
      kind: "hello",
      version: PROTOCOL_VERSION,
      versionMin: PROTOCOL_VERSION_MIN,
      features: FEATURES,
      software: "vmferry 0.1.0",
      incarnation: "abc",
    });
    expect(decodeControl(encodeControl(ours))).toEqual(ours);
  });

  test("agrees with that of another agent of this build", () => {
    const theirs = ourHello({ software: "vmferry 0.1.0", incarnation: "def" });
    const agreement = agree(ours, theirs);
    expect(agreement.version).toBe(PROTOCOL_VERSION);
    expect(agreement.incarnation).toBe("def");
    expect(agree(theirs, ours).incarnation).toBe("abc");
  });
});
