/** Every limit that the NBD server holds a client to. */

export const NAME_BYTES_MAX = 4096;
/** A name of the greatest length, and room for the counts and short queries beside it. */
export const OPTION_BYTES_MAX = NAME_BYTES_MAX + 256;
/** From the connection to the option that ends the handshake. */
export const HANDSHAKE_MS_MAX = 10_000;
export const HANDSHAKES_MAX = 16;

/** What a READ or a WRITE may carry; advertised in INFO_BLOCK_SIZE. */
export const PAYLOAD_BYTES_MAX = 32 * 1024 * 1024;
export const PREFERRED_BLOCK_BYTES = 4096;

/** Of one connection, from the request's header until its reply is with the kernel. */
export const REQUESTS_IN_FLIGHT_MAX = 128;
export const BYTES_IN_FLIGHT_MAX = 64 * 1024 * 1024;

/** Extents of one BLOCK_STATUS reply; the client asks again for what lies behind them. */
export const STATUS_EXTENTS_MAX = 4096;
/** What a BLOCK_STATUS counts as in flight: the device may list very many extents for it. */
export const STATUS_BYTES = 4 * 1024 * 1024;

/** Shorter reads are not worth asking the device where its zeroes are. */
export const SPARSE_READ_BYTES_MIN = 1024 * 1024;
/** A read in more pieces than this goes out as one. */
export const READ_PIECES_MAX = 64;
