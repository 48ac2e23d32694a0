/**
 * What is to become of a request, told from its header alone: before its payload is read, before
 * memory is taken for it, and before the device hears of it.
 *
 *   run          within the export's size and rights, ready for the device
 *   refuse       an error reply, after `payloadBytes` were read and thrown away
 *   disconnect   the client says good-bye
 *   drop         no reply: what follows the header is too much to read past
 *
 * Only WRITE has a payload. The length of any other command says how much of the export it is
 * about, also for commands that this server does not know.
 */
import { CommandFlag, NbdCommand } from "./nbd-constants.ts";
import { NbdErrno } from "./nbd-errno.ts";
import { PAYLOAD_BYTES_MAX, STATUS_BYTES } from "./nbd-limits.ts";
import type { NbdRequest } from "./request-codec.ts";

interface Range {
  readonly offset: number;
  readonly length: number;
}

export type DeviceCommand =
  | (Range & { readonly kind: "read"; readonly dontFragment: boolean })
  | (Range & { readonly kind: "write"; readonly fua: boolean })
  | { readonly kind: "flush" }
  | (Range & { readonly kind: "trim"; readonly fua: boolean })
  | { readonly kind: "cache" }
  | (Range & { readonly kind: "write-zeroes"; readonly fua: boolean; readonly mayPunch: boolean })
  | (Range & { readonly kind: "block-status"; readonly oneExtent: boolean });

export type RequestVerdict =
  | {
      readonly kind: "run";
      readonly command: DeviceCommand;
      /** Memory that the request takes until its reply is gone. */
      readonly weightBytes: number;
    }
  | { readonly kind: "refuse"; readonly errno: NbdErrno; readonly payloadBytes: number }
  | { readonly kind: "disconnect" }
  | { readonly kind: "drop"; readonly rule: string };

export interface RequestRules {
  readonly sizeBytes: number;
  readonly readOnly: boolean;
  readonly structuredReplies: boolean;
  readonly blockStatus: boolean;
}

export function checkRequest(request: NbdRequest, rules: RequestRules): RequestVerdict {
  const isWrite = request.command === NbdCommand.WRITE;
  if (request.command === NbdCommand.DISC) return { kind: "disconnect" };
  if (isWrite && request.length > PAYLOAD_BYTES_MAX) {
    return { kind: "drop", rule: "payload length" };
  }
  const errno = fault(request, rules);
  if (errno !== null) {
    return { kind: "refuse", errno, payloadBytes: isWrite ? request.length : 0 };
  }
  const command = deviceCommand(request);
  if (command === null) return { kind: "refuse", errno: NbdErrno.EINVAL, payloadBytes: 0 };
  return { kind: "run", command, weightBytes: weightOf(command) };
}

function fault(request: NbdRequest, rules: RequestRules): NbdErrno | null {
  const { command, length } = request;
  if ((request.flags & ~allowedFlags(command, rules)) !== 0) return NbdErrno.EINVAL;
  if (command === NbdCommand.FLUSH) {
    return request.offset === 0n && length === 0 ? null : NbdErrno.EINVAL;
  }
  if (rules.readOnly && changesContent(command)) return NbdErrno.EPERM;
  if (command === NbdCommand.BLOCK_STATUS && !rules.blockStatus) return NbdErrno.EINVAL;
  // The protocol leaves it open what an empty range means; a device is never asked for one.
  if (length === 0) return NbdErrno.EINVAL;
  if (request.offset + BigInt(length) > BigInt(rules.sizeBytes)) {
    const needsSpace = command === NbdCommand.WRITE || command === NbdCommand.WRITE_ZEROES;
    return needsSpace ? NbdErrno.ENOSPC : NbdErrno.EINVAL;
  }
  if (command === NbdCommand.READ && length > PAYLOAD_BYTES_MAX) {
    // A client without structured replies need not know EOVERFLOW.
    return rules.structuredReplies ? NbdErrno.EOVERFLOW : NbdErrno.EINVAL;
  }
  return null;
}

/** FUA goes with every command, whether or not it has anything to persist. */
function allowedFlags(command: number, rules: RequestRules): number {
  switch (command) {
    case NbdCommand.READ:
      return CommandFlag.FUA | (rules.structuredReplies ? CommandFlag.DF : 0);
    case NbdCommand.WRITE_ZEROES:
      return CommandFlag.FUA | CommandFlag.NO_HOLE;
    case NbdCommand.BLOCK_STATUS:
      return CommandFlag.FUA | CommandFlag.REQ_ONE;
    default:
      return CommandFlag.FUA;
  }
}

function changesContent(command: number): boolean {
  return (
    command === NbdCommand.WRITE ||
    command === NbdCommand.TRIM ||
    command === NbdCommand.WRITE_ZEROES
  );
}

/** Null for a command that this server does not know. The range has been checked. */
function deviceCommand({ command, flags, ...request }: NbdRequest): DeviceCommand | null {
  const range = { offset: Number(request.offset), length: request.length };
  const fua = (flags & CommandFlag.FUA) !== 0;
  switch (command) {
    case NbdCommand.READ:
      return { kind: "read", ...range, dontFragment: (flags & CommandFlag.DF) !== 0 };
    case NbdCommand.WRITE:
      return { kind: "write", ...range, fua };
    case NbdCommand.FLUSH:
      return { kind: "flush" };
    case NbdCommand.TRIM:
      return { kind: "trim", ...range, fua };
    case NbdCommand.CACHE:
      return { kind: "cache" };
    case NbdCommand.WRITE_ZEROES: {
      const mayPunch = (flags & CommandFlag.NO_HOLE) === 0;
      return { kind: "write-zeroes", ...range, fua, mayPunch };
    }
    case NbdCommand.BLOCK_STATUS:
      return { kind: "block-status", ...range, oneExtent: (flags & CommandFlag.REQ_ONE) !== 0 };
    default:
      return null;
  }
}

function weightOf(command: DeviceCommand): number {
  switch (command.kind) {
    case "read":
    case "write":
      return command.length;
    case "block-status":
      return STATUS_BYTES;
    case "flush":
    case "trim":
    case "cache":
    case "write-zeroes":
      return 0;
  }
}
