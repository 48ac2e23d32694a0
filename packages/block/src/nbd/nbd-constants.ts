/**
 * Numbers of the NBD protocol under the names of its specification, without their `NBD_`:
 * https://github.com/NetworkBlockDevice/nbd/blob/master/doc/proto.md
 */

/** "NBDMAGIC" */
export const GREETING_MAGIC = 0x4e42444d41474943n;
/** "IHAVEOPT": of the greeting and of every option. */
export const OPTION_MAGIC = 0x49484156454f5054n;
export const OPTION_REPLY_MAGIC = 0x0003e889045565a9n;
export const REQUEST_MAGIC = 0x25609513;
export const SIMPLE_REPLY_MAGIC = 0x67446698;
export const STRUCTURED_REPLY_MAGIC = 0x668e33ef;

export const CLIENT_FLAGS_BYTES = 4;
export const OPTION_HEADER_BYTES = 16;
export const REQUEST_HEADER_BYTES = 28;

/** The same bits in the server's handshake flags and in the client's answer to them. */
export const HandshakeFlag = { FIXED_NEWSTYLE: 1, NO_ZEROES: 2 } as const;

export const TransmissionFlag = {
  HAS_FLAGS: 1 << 0,
  READ_ONLY: 1 << 1,
  SEND_FLUSH: 1 << 2,
  SEND_FUA: 1 << 3,
  SEND_TRIM: 1 << 5,
  SEND_WRITE_ZEROES: 1 << 6,
  SEND_DF: 1 << 7,
  SEND_CACHE: 1 << 10,
} as const;

export const NbdOption = {
  EXPORT_NAME: 1,
  ABORT: 2,
  LIST: 3,
  INFO: 6,
  GO: 7,
  STRUCTURED_REPLY: 8,
  LIST_META_CONTEXT: 9,
  SET_META_CONTEXT: 10,
} as const;

export const OptionReply = { ACK: 1, SERVER: 2, INFO: 3, META_CONTEXT: 4 } as const;

export const OptionError = {
  UNSUP: 0x8000_0001,
  INVALID: 0x8000_0003,
  UNKNOWN: 0x8000_0006,
} as const;
export type OptionError = (typeof OptionError)[keyof typeof OptionError];

export const InfoType = { EXPORT: 0, NAME: 1, BLOCK_SIZE: 3 } as const;

export const NbdCommand = {
  READ: 0,
  WRITE: 1,
  DISC: 2,
  FLUSH: 3,
  TRIM: 4,
  CACHE: 5,
  WRITE_ZEROES: 6,
  BLOCK_STATUS: 7,
} as const;

export const CommandFlag = { FUA: 1 << 0, NO_HOLE: 1 << 1, DF: 1 << 2, REQ_ONE: 1 << 3 } as const;

export const REPLY_FLAG_DONE = 1;

export const ReplyType = {
  OFFSET_DATA: 1,
  OFFSET_HOLE: 2,
  BLOCK_STATUS: 5,
  ERROR: 0x8001,
} as const;

export const ALLOCATION_CONTEXT = "base:allocation";
/** Names the context in this server's replies; any number would do. */
export const ALLOCATION_CONTEXT_ID = 1;
/** Flags of an extent in that context. */
export const ExtentState = { DATA: 0, HOLE_AND_ZERO: 3 } as const;
