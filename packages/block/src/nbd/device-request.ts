/**
 * Carries out one checked request on the device and encodes its reply. The reply is made only
 * when everything of the request is known to have succeeded: a read that fails half way has sent
 * nothing yet.
 */
import { assert, failpoint, unreachable } from "@vmferry/core";
import type { BlockDevice, Extent } from "../block-device.ts";
import { coalesceExtents } from "./coalesce-extents.ts";
import { READ_PIECES_MAX, SPARSE_READ_BYTES_MIN, STATUS_EXTENTS_MAX } from "./nbd-limits.ts";
import type { NbdErrno } from "./nbd-errno.ts";
import {
  encodeDataChunk,
  encodeErrorChunk,
  encodeHoleChunk,
  encodeSimpleReply,
  encodeStatusChunk,
} from "./reply-codec.ts";
import type { DeviceCommand } from "./request-check.ts";

export interface DeviceRequest {
  readonly cookie: bigint;
  readonly structuredReplies: boolean;
  readonly command: DeviceCommand;
  /** Data of a write; empty otherwise. */
  readonly payload: Buffer;
}

/** The reply, in parts that are sent one behind the other. Rejects as the device does. */
export async function carryOut(request: DeviceRequest, device: BlockDevice): Promise<Buffer[]> {
  const { command, cookie } = request;
  switch (command.kind) {
    case "read":
      return await read(request, command, device);
    case "write":
      failpoint("nbd.write.before");
      await device.write(command.offset, request.payload);
      failpoint("nbd.write.after");
      break;
    case "write-zeroes":
      await device.writeZeroes(command.offset, command.length, { mayPunch: command.mayPunch });
      break;
    case "trim":
      await device.trim(command.offset, command.length);
      break;
    case "flush":
      failpoint("nbd.flush.before");
      await device.flush();
      failpoint("nbd.flush.after");
      break;
    case "cache":
      break;
    case "block-status":
      return [encodeStatusChunk(cookie, await statusExtents(command, device))];
    default:
      return unreachable(command);
  }
  if ("fua" in command && command.fua) await device.flush();
  return [encodeSimpleReply(cookie, 0)];
}

/** READ must be refused in the form that was agreed on; any other command may. */
export function encodeRefusal(
  { cookie, structuredReplies }: Pick<DeviceRequest, "cookie" | "structuredReplies">,
  errno: NbdErrno,
): Buffer {
  return structuredReplies ? encodeErrorChunk(cookie, errno) : encodeSimpleReply(cookie, errno);
}

type ReadCommand = DeviceCommand & { readonly kind: "read" };

async function read(
  { cookie, structuredReplies }: DeviceRequest,
  command: ReadCommand,
  device: BlockDevice,
): Promise<Buffer[]> {
  if (!structuredReplies) {
    return [encodeSimpleReply(cookie, 0), await readExactly(command, device)];
  }
  const pieces = await readPieces(command, device);
  const parts: Buffer[] = [];
  for (const [index, piece] of pieces.entries()) {
    const head = { cookie, done: index === pieces.length - 1 };
    if (piece.kind === "zero") parts.push(encodeHoleChunk(head, piece));
    else parts.push(encodeDataChunk(head, piece), await readExactly(piece, device));
  }
  return parts;
}

/** One piece per chunk of the reply. */
async function readPieces(command: ReadCommand, device: BlockDevice): Promise<readonly Extent[]> {
  const { offset, length } = command;
  const whole: readonly Extent[] = [{ offset, length, kind: "data" }];
  if (command.dontFragment || length < SPARSE_READ_BYTES_MIN) return whole;
  const pieces = coalesceExtents(await device.extents(offset, length), command);
  const told = pieces.reduce((sum, piece) => sum + piece.length, 0);
  if (told < length) {
    pieces.push({ offset: offset + told, length: length - told, kind: "data" });
  }
  return pieces.length <= READ_PIECES_MAX ? pieces : whole;
}

async function readExactly(
  { offset, length }: { readonly offset: number; readonly length: number },
  device: BlockDevice,
): Promise<Buffer> {
  const data = await device.read(offset, length);
  assert(data.length === length, "a device reads as much as it was asked for");
  return data;
}

async function statusExtents(
  command: DeviceCommand & { readonly kind: "block-status" },
  device: BlockDevice,
): Promise<readonly Extent[]> {
  const extents = coalesceExtents(await device.extents(command.offset, command.length), command);
  return extents.slice(0, command.oneExtent ? 1 : STATUS_EXTENTS_MAX);
}
