import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { DeviceStateTail } from "./device-state-tail.ts";
import { StreamError } from "./stream-error.ts";

const BYTES_MAX = 2 ** 20;
const FOOTER = Buffer.from("7e00000009", "hex");
const DESCRIPTION = { page_size: 4096, devices: [{ name: "timer", instance_id: 0 }] };

function description(value: unknown = DESCRIPTION): Buffer {
  const json = Buffer.from(JSON.stringify(value));
  const head = Buffer.alloc(6);
  head[1] = 6;
  head.writeUInt32BE(json.length, 2);
  return Buffer.concat([head, json]);
}

function sections(content: Uint8Array): Buffer {
  return Buffer.concat([Buffer.from("0400000009", "hex"), content, FOOTER]);
}

/** In chunks that end at these places. */
function pushed(bytes: Buffer, cuts: readonly number[] = []): DeviceStateTail {
  const tail = new DeviceStateTail(BYTES_MAX);
  let from = 0;
  for (const to of [...cuts, bytes.length].sort((a, b) => a - b)) {
    tail.push(bytes.subarray(from, to));
    from = to;
  }
  return tail;
}

/** What a device may have saved that looks like the end of device state, or like half of one. */
const lookAlike = fc.oneof(
  fc.constant(description()),
  fc.constant(Buffer.concat([FOOTER, description()])),
  fc.constant(Buffer.concat([FOOTER, description().subarray(0, 20)])),
  fc.constant(Buffer.concat([FOOTER, Buffer.of(0, 6, 0, 0, 16, 0, 0x7b)])),
  fc.constant(Buffer.of(0, 6, 0, 6, 0, 6)),
  fc.uint8Array({ maxLength: 60 }),
);
const content = fc
  .array(lookAlike, { maxLength: 8 })
  // A byte of the device stands last, so that no look-alike ends where the state does.
  .map((parts) => Buffer.concat([...parts, Buffer.of(1)]));

describe("the end of device state", () => {
  it("is where the description begins, however the bytes come and whatever devices save", () => {
    fc.assert(
      fc.property(content, fc.array(fc.nat(2000), { maxLength: 20 }), (saved, cuts) => {
        const state = sections(saved);
        const bytes = Buffer.concat([state, description()]);
        const tail = pushed(
          bytes,
          cuts.filter((cut) => cut < bytes.length),
        );
        expect(tail.deviceBytes).toBe(state.length);
        expect(tail.bytes.equals(bytes)).toBe(true);
      }),
    );
  });

  it("is found when every byte comes alone, and at the last one", () => {
    const state = sections(Buffer.concat([Buffer.of(0, 6), FOOTER, description().subarray(0, 9)]));
    const bytes = Buffer.concat([state, description()]);
    const tail = new DeviceStateTail(BYTES_MAX);
    for (let at = 0; at < bytes.length; at++) {
      expect(tail.deviceBytes).toBeNull();
      tail.push(bytes.subarray(at, at + 1));
    }
    expect(tail.deviceBytes).toBe(state.length);
  });

  it.each([
    ["a machine that suppresses the description", Buffer.of(0)],
    ["a description that is not all there", description().subarray(0, -1)],
    ["something behind the description", Buffer.concat([description(), Buffer.of(0)])],
    ["a description of no device", description({ devices: [] })],
    ["a description that is none", description([DESCRIPTION])],
  ])("is not known with %s", (_what, end) => {
    expect(pushed(Buffer.concat([sections(Buffer.alloc(100)), end])).deviceBytes).toBeNull();
  });

  it("is not known where no section ends before it", () => {
    expect(pushed(Buffer.concat([Buffer.alloc(100), description()])).deviceBytes).toBeNull();
  });

  it("is not known any more when more comes", () => {
    const tail = pushed(Buffer.concat([sections(Buffer.alloc(9)), description()]));
    expect(tail.deviceBytes).not.toBeNull();
    tail.push(Buffer.of(4));
    expect(tail.deviceBytes).toBeNull();
  });

  it("is not waited for beyond what device state may have", () => {
    const tail = new DeviceStateTail(1000);
    tail.push(Buffer.alloc(1000));
    expect(() => {
      tail.push(Buffer.alloc(7));
    }).toThrow(StreamError);
  });

  it("does not count the description as device state", () => {
    const state = sections(Buffer.alloc(990));
    const tail = new DeviceStateTail(1000);
    tail.push(Buffer.concat([state, description({ ...DESCRIPTION, more: "x".repeat(5000) })]));
    expect(tail.deviceBytes).toBe(1000);
  });
});
