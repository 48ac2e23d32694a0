import { ByteReader } from "@vmferry/core";

import { NAME_ENCODING } from "./stream-format.ts";
import { StreamError } from "./stream-error.ts";

/** Commands that ride in the stream between sections. */
export const COMMAND = {
  OPEN_RETURN_PATH: 1,
  PING: 2,
  POSTCOPY_ADVISE: 3,
  POSTCOPY_LISTEN: 4,
  POSTCOPY_RUN: 5,
  POSTCOPY_RAM_DISCARD: 6,
  PACKAGED: 7,
  ENABLE_COLO: 8,
  POSTCOPY_RESUME: 9,
  RECV_BITMAP: 10,
  SWITCHOVER_START: 11,
} as const;

/** [name, payload lengths that are legal; null = what the payload itself says], by command code. */
const COMMANDS: readonly (readonly [string, readonly number[] | null])[] = [
  ["invalid", []],
  ["OPEN_RETURN_PATH", [0]],
  ["PING", [4]],
  ["POSTCOPY_ADVISE", [0, 16]],
  ["POSTCOPY_LISTEN", [0]],
  ["POSTCOPY_RUN", [0]],
  ["POSTCOPY_RAM_DISCARD", null],
  ["PACKAGED", [4]],
  ["ENABLE_COLO", [0]],
  ["POSTCOPY_RESUME", [0]],
  ["RECV_BITMAP", null],
  ["SWITCHOVER_START", [0]],
];

const RANGE_END_MAX = BigInt(Number.MAX_SAFE_INTEGER);

/** Pages that the destination must forget before post-copy starts, because they go again. */
export interface RamDiscard {
  readonly block: string;
  readonly ranges: readonly { readonly startBytes: number; readonly lengthBytes: number }[];
}

export function badCommand(command: string, payloadBytes: number, why: string): StreamError {
  return new StreamError(`command ${command} with ${payloadBytes} bytes: ${why}`, {
    code: "stream-bad-command",
    command,
    payloadBytes,
  });
}

export function commandName(command: number): string {
  return COMMANDS[command]?.[0] ?? String(command);
}

/** Refuses an unknown command and a wrong fixed length, before the payload is read. */
export function checkCommandHeader(command: number, payloadBytes: number): void {
  const known = COMMANDS[command];
  if (command === 0 || known === undefined) {
    throw new StreamError(`unknown command ${command}`, {
      code: "stream-unknown-command",
      command,
    });
  }
  const [name, lengths] = known;
  if (command === COMMAND.ENABLE_COLO) {
    // A COLO source goes on with checkpoints behind END, which would pass for device state here.
    throw new StreamError("COLO replication cannot be carried", {
      code: "stream-unsupported-command",
      command: name,
    });
  }
  if (lengths !== null && !lengths.includes(payloadBytes)) {
    throw badCommand(name, payloadBytes, `the length has to be ${lengths.join(" or ")}`);
  }
}

/** Refuses a payload of variable length that does not add up. */
export function checkCommandPayload(command: number, payload: Uint8Array): void {
  if (command === COMMAND.POSTCOPY_RAM_DISCARD) decodeRamDiscard(payload);
  if (command === COMMAND.RECV_BITMAP && payload[0] !== payload.length - 1) {
    throw badCommand("RECV_BITMAP", payload.length, "not one block name");
  }
}

/** The payload of POSTCOPY_RAM_DISCARD. */
export function decodeRamDiscard(payload: Uint8Array): RamDiscard {
  const refuse = (why: string): StreamError =>
    badCommand("POSTCOPY_RAM_DISCARD", payload.length, why);
  const nameBytes = payload[1] ?? 0;
  const rangesAt = 3 + nameBytes;
  if (payload.length < rangesAt || (payload.length - rangesAt) % 16 !== 0) {
    throw refuse("the ranges are not whole");
  }
  const reader = new ByteReader(payload);
  if (reader.u8("version") !== 0) throw refuse("the version has to be 0");
  reader.u8("name length");
  const block = Buffer.from(reader.bytes("name", nameBytes)).toString(NAME_ENCODING);
  if (reader.u8("name terminator") !== 0) throw refuse("the name is not closed by a zero");
  const ranges = [];
  while (reader.remaining > 0) {
    const range = { startBytes: reader.u64("start"), lengthBytes: reader.u64("length") };
    if (range.startBytes + range.lengthBytes > RANGE_END_MAX) throw refuse("a range ends too far");
    ranges.push({
      startBytes: Number(range.startBytes),
      lengthBytes: Number(range.lengthBytes),
    });
  }
  return { block, ranges };
}
