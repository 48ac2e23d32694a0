/**
 * The server's side of a fixed newstyle handshake, as a pure transition per piece of input:
 *
 *   client-flags -> option-header -> option-data -> option-header -> ...
 *                                               `-> entering | aborted
 *
 * Whoever drives it feeds exactly `handshakeBytesExpected(state)` bytes each time, so that a
 * declared length is checked before anything of it is buffered. A client that breaks the protocol
 * beyond an error reply makes the transition throw, and is dropped. Nothing here touches the
 * device: `entering` is the first moment at which somebody else may.
 */
import { assert, ByteError, unreachable } from "@vmferry/core";
import {
  ALLOCATION_CONTEXT,
  ALLOCATION_CONTEXT_ID,
  CLIENT_FLAGS_BYTES,
  InfoType,
  NbdOption,
  OPTION_HEADER_BYTES,
  OptionError,
  OptionReply,
  TransmissionFlag,
} from "./nbd-constants.ts";
import { NbdError, violation } from "./nbd-error.ts";
import { OPTION_BYTES_MAX } from "./nbd-limits.ts";
import {
  decodeClientFlags,
  decodeInfoRequest,
  decodeMetaContextRequest,
  decodeOptionHeader,
  encodeBlockSizeInfo,
  encodeExportInfo,
  encodeExportNameReply,
  encodeMetaContextReply,
  encodeNameInfo,
  encodeOptionError,
  encodeOptionReply,
  encodeServerReply,
} from "./option-codec.ts";

/** Selects nothing, but lists every context of its namespace. */
const BASE_WILDCARD = "base:";

export interface ServedExport {
  readonly name: Buffer;
  readonly sizeBytes: number;
  readonly readOnly: boolean;
}

/** What client and server have agreed on so far. */
export interface Agreed {
  readonly noZeroes: boolean;
  readonly structuredReplies: boolean;
  /** `base:allocation` is selected. */
  readonly blockStatus: boolean;
}

export type HandshakeState =
  | { readonly phase: "client-flags" }
  | { readonly phase: "option-header"; readonly agreed: Agreed }
  | {
      readonly phase: "option-data";
      readonly agreed: Agreed;
      readonly option: number;
      readonly length: number;
    }
  /** The reply begins the transmission: it is held back until the export is free. */
  | { readonly phase: "entering"; readonly agreed: Agreed }
  | { readonly phase: "aborted" };

export interface HandshakeStep {
  readonly state: HandshakeState;
  readonly reply: Buffer;
}

export const HANDSHAKE_BEGIN: HandshakeState = { phase: "client-flags" };

const NO_REPLY = Buffer.alloc(0);

export function handshakeBytesExpected(state: HandshakeState): number {
  switch (state.phase) {
    case "client-flags":
      return CLIENT_FLAGS_BYTES;
    case "option-header":
      return OPTION_HEADER_BYTES;
    case "option-data":
      return state.length;
    case "entering":
    case "aborted":
      return 0;
    default:
      return unreachable(state);
  }
}

/** Throws NbdError when the client is to be dropped without a reply. */
export function nextHandshake(
  state: HandshakeState,
  bytes: Uint8Array,
  served: ServedExport,
): HandshakeStep {
  assert(bytes.length === handshakeBytesExpected(state), "a handshake takes what it asked for");
  switch (state.phase) {
    case "client-flags": {
      const { noZeroes } = decodeClientFlags(bytes);
      const agreed = { noZeroes, structuredReplies: false, blockStatus: false };
      return { state: { phase: "option-header", agreed }, reply: NO_REPLY };
    }
    case "option-header": {
      const { option, length } = decodeOptionHeader(bytes);
      if (length > OPTION_BYTES_MAX) throw violation("option length");
      return {
        state: { phase: "option-data", agreed: state.agreed, option, length },
        reply: NO_REPLY,
      };
    }
    case "option-data":
      return answerOption(state, bytes, served);
    case "entering":
    case "aborted":
      throw violation(`bytes when the handshake is ${state.phase}`);
    default:
      return unreachable(state);
  }
}

export function transmissionFlags(served: ServedExport, structuredReplies: boolean): number {
  const always =
    TransmissionFlag.HAS_FLAGS |
    TransmissionFlag.SEND_FLUSH |
    TransmissionFlag.SEND_FUA |
    TransmissionFlag.SEND_CACHE;
  const writing = served.readOnly
    ? TransmissionFlag.READ_ONLY
    : TransmissionFlag.SEND_TRIM | TransmissionFlag.SEND_WRITE_ZEROES;
  return always | writing | (structuredReplies ? TransmissionFlag.SEND_DF : 0);
}

type OptionState = HandshakeState & { readonly phase: "option-data" };

function answerOption(state: OptionState, data: Uint8Array, served: ServedExport): HandshakeStep {
  const { option, agreed } = state;
  switch (option) {
    case NbdOption.EXPORT_NAME:
      // The one option that cannot be refused by a reply.
      if (!selects(data, served)) throw violation("export name");
      return {
        state: { phase: "entering", agreed },
        reply: encodeExportNameReply(exportInfo(agreed, served), agreed.noZeroes),
      };
    case NbdOption.ABORT:
      return { state: { phase: "aborted" }, reply: encodeOptionReply(option, OptionReply.ACK) };
    case NbdOption.LIST:
      if (data.length > 0) return refuse(state, OptionError.INVALID);
      return accept(state, [encodeServerReply(option, served.name)]);
    case NbdOption.INFO:
    case NbdOption.GO:
      return answerInfo(state, data, served);
    case NbdOption.STRUCTURED_REPLY:
      if (data.length > 0) return refuse(state, OptionError.INVALID);
      return accept({ ...state, agreed: { ...agreed, structuredReplies: true } }, []);
    case NbdOption.LIST_META_CONTEXT:
    case NbdOption.SET_META_CONTEXT:
      return answerMetaContext(state, data, served);
    default:
      // STARTTLS too: the socket is a file that only this user can open.
      return refuse(state, OptionError.UNSUP);
  }
}

function answerInfo(state: OptionState, data: Uint8Array, served: ServedExport): HandshakeStep {
  const { option, agreed } = state;
  const request = decoded(() => decodeInfoRequest(data));
  if (request === null) return refuse(state, OptionError.INVALID);
  if (!selects(request.name, served)) return refuse(state, OptionError.UNKNOWN);
  const info = [
    encodeExportInfo(option, exportInfo(agreed, served)),
    encodeBlockSizeInfo(option),
    ...(request.infoTypes.includes(InfoType.NAME) ? [encodeNameInfo(option, served.name)] : []),
  ];
  const step = accept(state, info);
  return option === NbdOption.GO ? { ...step, state: { phase: "entering", agreed } } : step;
}

function answerMetaContext(
  state: OptionState,
  data: Uint8Array,
  served: ServedExport,
): HandshakeStep {
  const { option } = state;
  const isSet = option === NbdOption.SET_META_CONTEXT;
  // Setting replaces what was set before, even where it fails.
  const without = isSet ? { ...state, agreed: { ...state.agreed, blockStatus: false } } : state;
  if (!state.agreed.structuredReplies) return refuse(without, OptionError.INVALID);
  const request = decoded(() => decodeMetaContextRequest(data));
  if (request === null) return refuse(without, OptionError.INVALID);
  if (!selects(request.name, served)) return refuse(without, OptionError.UNKNOWN);

  const { queries } = request;
  const listed = queries.length === 0 || queries.includes(BASE_WILDCARD);
  const found = queries.includes(ALLOCATION_CONTEXT) || (!isSet && listed);
  if (!found) return accept(without, []);
  // In a list the id has no meaning and is 0.
  const id = isSet ? ALLOCATION_CONTEXT_ID : 0;
  const agreed = { ...without.agreed, blockStatus: isSet || without.agreed.blockStatus };
  return accept({ ...without, agreed }, [
    encodeMetaContextReply(option, { id, name: ALLOCATION_CONTEXT }),
  ]);
}

function accept({ option, agreed }: OptionState, replies: readonly Buffer[]): HandshakeStep {
  return {
    state: { phase: "option-header", agreed },
    reply: Buffer.concat([...replies, encodeOptionReply(option, OptionReply.ACK)]),
  };
}

function refuse({ option, agreed }: OptionState, error: OptionError): HandshakeStep {
  return { state: { phase: "option-header", agreed }, reply: encodeOptionError(option, error) };
}

function exportInfo(
  agreed: Agreed,
  served: ServedExport,
): { readonly sizeBytes: number; readonly flags: number } {
  return {
    sizeBytes: served.sizeBytes,
    flags: transmissionFlags(served, agreed.structuredReplies),
  };
}

/** Compared as bytes: a name that is not UTF-8 is simply another one. The empty name is the default. */
function selects(name: Uint8Array, served: ServedExport): boolean {
  return name.length === 0 || served.name.equals(name);
}

/** Null for data that do not keep to their own lengths: those get an error reply. */
function decoded<T>(decode: () => T): T | null {
  try {
    return decode();
  } catch (error) {
    if (error instanceof ByteError || error instanceof NbdError) return null;
    throw error;
  }
}
