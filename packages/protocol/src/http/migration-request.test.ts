import { Compile } from "typebox/compile";
import { Value } from "typebox/value";
import { expect, test } from "vitest";
import { MigrationPatchSchema, MigrationRequestSchema } from "./migration-request.ts";

const validator = Compile(MigrationRequestSchema);
const patchValidator = Compile(MigrationPatchSchema);
const minimal = { guest: "web1", destination: "host-b" };

test("two names are a whole request: the rest has defaults", () => {
  expect(Value.Default(MigrationRequestSchema, structuredClone(minimal))).toEqual({
    ...minimal,
    mode: "auto",
    limits: { bandwidthBytesPerSecond: null, downtimeMsMax: 300, totalMsMax: null },
    onStall: "post-copy",
    disk: { tracker: "bitmap", writes: "mirror", handover: "synced" },
    fallback: "none",
    allowUnsafe: [],
  });
});

test("the request of the documentation is valid", () => {
  const documented = {
    ...minimal,
    mode: "auto",
    limits: { bandwidthBytesPerSecond: null, downtimeMsMax: 300, totalMsMax: null },
    onStall: "post-copy",
    disk: { tracker: "bitmap", writes: "mirror", handover: "synced" },
    fallback: "none",
    allowUnsafe: ["memory", "dest-space"],
  };
  expect(validator.Check(documented)).toBe(true);
});

test.each([
  ["a URL for a destination", { ...minimal, destination: "ws://127.0.0.1:22" }],
  ["an unknown mode", { ...minimal, mode: "precopy" }],
  ["an unknown limit", { ...minimal, limits: { downtimeMs: 300 } }],
  ["no time to stop the guest in", { ...minimal, limits: { downtimeMsMax: 0 } }],
  ["a downtime of null", { ...minimal, limits: { downtimeMsMax: null } }],
  ["a negative bandwidth", { ...minimal, limits: { bandwidthBytesPerSecond: -1 } }],
  ["a check that nobody may override", { ...minimal, allowUnsafe: ["shared-images"] }],
  ["a bandwidth of 2^53", { ...minimal, limits: { bandwidthBytesPerSecond: 2 ** 53 } }],
])("%s is refused", (_, request) => {
  expect(validator.Check(request)).toBe(false);
});

test("a patch names at least one limit, and only limits", () => {
  expect(patchValidator.Check({ limits: { bandwidthBytesPerSecond: null } })).toBe(true);
  expect(patchValidator.Check({ limits: { downtimeMsMax: 500, totalMsMax: 1000 } })).toBe(true);
  expect(patchValidator.Check({ limits: {} })).toBe(false);
  expect(patchValidator.Check({})).toBe(false);
  expect(patchValidator.Check({ limits: { totalMsMax: 1 }, mode: "auto" })).toBe(false);
});

test("a patch has no defaults: they would reset the limits that it does not name", () => {
  const patch = { limits: { downtimeMsMax: 500 } };
  expect(Value.Default(MigrationPatchSchema, structuredClone(patch))).toEqual(patch);
});
