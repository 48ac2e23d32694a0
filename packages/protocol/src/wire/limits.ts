/** Every limit of the wire between two agents, in one place. `docs/protocol.md` repeats them. */

/** Oldest and newest protocol version that this build speaks. */
export const PROTOCOL_VERSION_MIN = 2;
export const PROTOCOL_VERSION = 2;

/** A control message, packed. */
export const CONTROL_BYTES_MAX = 64 * 1024;
export const CONTROL_DEPTH_MAX = 8;
/** Elements of one array or entries of one map in a control message. */
export const CONTROL_COUNT_MAX = 1024;
/** Characters of a reason that is meant for people. */
export const TEXT_LENGTH_MAX = 1024;

/** Checks in one probe-result, and characters of what each says. */
export const PROBE_CHECKS_MAX = 24;
export const PROBE_TEXT_LENGTH_MAX = 256;

export const PAGE_BYTES = 4096;
/** Data pages in one bulk frame. 64 pages are 256 KiB. */
export const FRAME_PAGES_MAX = 64;
export const FRAME_RUNS_MAX = 256;
export const FRAME_HEADER_BYTES = 32;
export const RUN_BYTES = 8;
/** Opaque stream bytes (prelude, commands, device state) in one bulk frame. */
export const FRAME_STREAM_BYTES_MAX = 256 * 1024;

/** All of it, where it goes to QEMU as one package. */
export const DEVICE_STATE_BYTES_MAX = 64 * 1024 * 1024;
/** Pages in one REQUEST, and runs in one MISSING message of the page lanes. */
export const REQUEST_PAGES_MAX = 16;
export const MISSING_RUNS_MAX = 4096;
/** Pages that a dest may have asked for and not placed yet. */
export const REQUESTS_MAX = 4096;

/** Disks of one guest. */
export const DISKS_MAX = 24;
/** 32 TiB. What an agent keeps for each 256 KiB of it, 8 bytes and a few bits, the dest bounds for all disks together. */
export const DISK_BYTES_MAX = 2 ** 45;
/** A block is what is tracked, copied and hashed as one; a power of two. */
export const DISK_BLOCK_BYTES_MIN = 64 * 1024;
export const DISK_BLOCK_BYTES_MAX = 1024 * 1024;
/** Extents of one DISK frame, and an entry of their table. */
export const FRAME_EXTENTS_MAX = 128;
export const EXTENT_BYTES = 16;
/** Data of one DISK frame. */
export const FRAME_DISK_BYTES_MAX = 256 * 1024;
/** A longer ZERO or TRIM becomes several. */
export const EXTENT_LENGTH_MAX = 1024 * 1024 * 1024;

/** Units of one ASK about a lazy disk, or of one answer. */
export const ASK_UNITS_MAX = 64;
/** Units that a source holds as asked for, over all disks. */
export const ASKED_UNITS_MAX = 32_768;
/** Runs of one KEPT. */
export const KEPT_RUNS_MAX = 1024;
/** The longest message about units: one that is raw. */
export const BLOCK_MESSAGE_BYTES_MAX = 24 + FRAME_DISK_BYTES_MAX;

/** Whole frame: what a bulk WebSocket accepts as one message. */
export const FRAME_BYTES_MAX =
  FRAME_HEADER_BYTES +
  Math.max(
    FRAME_RUNS_MAX * RUN_BYTES + FRAME_PAGES_MAX * PAGE_BYTES,
    FRAME_EXTENTS_MAX * EXTENT_BYTES + FRAME_DISK_BYTES_MAX,
    FRAME_STREAM_BYTES_MAX,
  );

export const BULK_CONNECTIONS_MAX = 16;
/** What a dest lets a source have under way, all bulk connections together. */
export const CREDIT_BYTES_MAX = 16 * 1024 * 1024;

/** Return-path bytes of the dest's QEMU in one control message. */
export const RETURN_PATH_BYTES_MAX = 16 * 1024;

export const RAM_BLOCKS_MAX = 256;
/** 16 TiB: page numbers inside a block fit 32 bits. */
export const RAM_BYTES_MAX = 2 ** 44;

/** Heartbeats on the control connection; a peer silent for `HEARTBEAT_LOST_MS` is lost. */
export const HEARTBEAT_INTERVAL_MS = 2000;
export const HEARTBEAT_LOST_MS = 8000;

/** A source that has lost a connection dials after this time, and after times that double from it. */
export const REDIAL_MS_MIN = 100;
/** With what a handshake takes, a link that is back is in use within two seconds. */
export const REDIAL_MS_MAX = 1500;
/** A link that is away for longer has ended the attempt. */
export const LINK_LOST_MS_MAX = 60_000;
/** While the guest stands still, all times without a link together: they are downtime. */
export const LINK_LOST_STUNNED_MS_MAX = 2000;
/** Messages of a session that may wait for their acknowledgement, in each direction. */
export const SENT_MESSAGES_MAX = 1024;
/** They are acknowledged at least each time so many have come. */
export const RECEIVED_MESSAGES_STEP = 64;
/** The same for the frames of a bulk connection. */
export const RECEIVED_FRAMES_STEP = 256;
export const RECEIVED_FRAME_BYTES_STEP = 1024 * 1024;
