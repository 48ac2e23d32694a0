/*
 * The numbers of QEMU's migration stream (QEMU 7.2 to 10, x86).
 *
 *   stream  = "QEVM" be32 3  [configuration]  *record
 *   record  = START | FULL | PART | END | COMMAND        until END of `ram`; device state behind it
 *   PART    = 0x02 be32 sectionId  *ram-record  EOS  FOOTER be32 sectionId
 *   ram-record = be64 (byte address inside the block | flags)  [str8 block unless CONTINUE]  payload
 *
 * Everything is big-endian; str8 is a length byte and that many bytes.
 */

/** A target page of x86. Flags live in the low 12 bits of a page address. */
export const PAGE_BYTES = 4096;

export const STREAM_MAGIC = 0x5145564d;
export const STREAM_VERSION = 3;
export const RAM_IDSTR = "ram";
export const RAM_VERSION = 4;

export const RECORD = {
  EOF: 0x00,
  START: 0x01,
  PART: 0x02,
  END: 0x03,
  FULL: 0x04,
  SUBSECTION: 0x05,
  VMDESC: 0x06,
  CONFIGURATION: 0x07,
  COMMAND: 0x08,
  FOOTER: 0x7e,
} as const;

export const RAM_FLAG = {
  FULL: 0x001,
  ZERO: 0x002,
  MEM_SIZE: 0x004,
  PAGE: 0x008,
  EOS: 0x010,
  CONTINUE: 0x020,
  XBZRLE: 0x040,
  HOOK: 0x080,
  COMPRESS_PAGE: 0x100,
  MULTIFD_FLUSH: 0x200,
} as const;

/** Bytes of a RAM record's address word, and of a section's footer. */
export const ADDRESS_BYTES = 8;
export const FOOTER_BYTES = 5;

/**
 * Block names as text. latin1 maps every byte to one character and back, so a name survives the
 * round trip through a string whatever bytes it has.
 */
export const NAME_ENCODING = "latin1";
export const NAME_BYTES_MAX = 255;
