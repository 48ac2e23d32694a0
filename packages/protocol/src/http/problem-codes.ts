/**
 * The one catalogue of stable error codes: `code` of an HTTP problem and `error.code` of a
 * migration. A code never changes its meaning; a new meaning gets a new code. Codes that only a
 * migration can end with have a status too, for the day a request fails with one of them at once.
 */

export interface ProblemKind {
  readonly status: number;
  /** The same for every occurrence; what is special about one goes into its detail. */
  readonly title: string;
}

export const problemCodes = {
  /** The body, the query or a header is not what the schema says; `errors[]` names the fields. */
  "invalid-request": { status: 400, title: "The request is not valid" },
  /** An API token is configured and the request did not carry it. */
  unauthorized: { status: 401, title: "The request carries no valid token" },
  /** A web page of another site tried to act, or to open an event stream. */
  "origin-not-allowed": { status: 403, title: "Requests from this origin are refused" },
  /** No such route. */
  "not-found": { status: 404, title: "There is nothing here" },
  /** No guest of this name on this agent. */
  "guest-not-found": { status: 404, title: "No such guest" },
  /** No migration of this id on this agent, or it ended so long ago that it was dropped. */
  "migration-not-found": { status: 404, title: "No such migration" },
  /** The route exists, with other methods: see the `Allow` header. */
  "method-not-allowed": { status: 405, title: "The method is not offered here" },
  /** The `Accept` header leaves nothing of what the route can answer. */
  "not-acceptable": { status: 406, title: "None of the accepted types is offered" },
  /** The client was too slow to send its request. */
  "request-timeout": { status: 408, title: "The request did not arrive in time" },
  /** A guest of this name already exists. */
  "guest-exists": { status: 409, title: "The guest exists already" },
  /** The operation needs a guest that runs. */
  "guest-not-running": { status: 409, title: "The guest does not run" },
  /** The QEMU behind this socket, or the guest in it, is one of this agent's guests already. */
  "guest-attached": { status: 409, title: "The guest is attached already" },
  /** Something else, such as a migration, is at work on the guest. */
  "guest-busy": { status: 409, title: "The guest is busy" },
  /** It is not known whose the guest is, or what it does: nothing is done with it. */
  "guest-in-doubt": { status: 409, title: "The guest is in doubt" },
  /** One active migration a guest: this guest has one. */
  "migration-active": { status: 409, title: "The guest is being migrated already" },
  /** The `Idempotency-Key` began another migration: a new request takes a new key. */
  "idempotency-conflict": { status: 409, title: "The idempotency key is taken" },
  /** Ownership has left this host: cancelling or tuning is no longer this agent's to do. */
  "past-hand-over": { status: 409, title: "Ownership has been handed over" },
  /** The dest cannot take memory after the hand-over, or the request says that it shall not; `detail` says why. */
  "post-copy-unavailable": { status: 409, title: "Post-copy is not possible" },
  /** The migration is over: there is nothing left to change. */
  "migration-ended": { status: 409, title: "The migration has ended" },
  /** The other role's agent does this: migrations start and are steered at the source. */
  "not-on-this-agent": { status: 409, title: "The other agent does this" },
  /** Bodies are limited to 64 KiB. */
  "payload-too-large": { status: 413, title: "The body is too large" },
  /** Bodies are `application/json` and nothing else. */
  "unsupported-media-type": { status: 415, title: "The body is not application/json" },
  /** Without a token, only requests that name a loopback host or an address are answered. */
  "host-not-allowed": { status: 421, title: "The request names a host that this agent is not" },
  /** The destination is none of the configured peers. */
  "destination-unknown": { status: 422, title: "The destination is not a configured peer" },
  /** The agents do not share a directory by which memory could follow the guest; the detail says what lacks. */
  "fallback-unavailable": { status: 422, title: "The shared filesystem cannot be used" },
  /** A warning: no room on the shared filesystem; what follows the guest comes by the network alone. */
  "page-file-full": { status: 507, title: "The shared filesystem is full" },
  /** A warning: the shared filesystem does not answer. */
  "page-file-unreachable": { status: 502, title: "The shared filesystem does not answer" },
  /** A warning: the shared filesystem reported another error. */
  "page-file-failed": { status: 502, title: "The shared filesystem failed" },
  /** A warning: the file of pages is not the one of this migration, or not under its key. */
  "page-file-foreign": { status: 502, title: "The file of pages is another one" },
  /** A warning: a newer agent wrote the file of pages. */
  "page-file-too-new": { status: 502, title: "The file of pages is of a newer version" },
  /** A warning: the file of pages is not as the source wrote it; nothing that does not hold is taken. */
  "page-file-damaged": { status: 502, title: "The file of pages is damaged" },
  /** A warning: the file of pages lost what it had. */
  "page-file-truncated": { status: 502, title: "The file of pages became shorter" },
  /** A warning: the file of pages was exchanged or removed. */
  "page-file-replaced": { status: 502, title: "The file of pages was exchanged" },
  /** A documented mode that this version does not have; the detail says what it has. */
  "not-available": { status: 422, title: "This version does not offer that" },
  /** Checks before the migration failed; `errors[]` has each with its name. Nothing was begun. */
  "preflight-failed": { status: 422, title: "The checks before the migration failed" },
  /** The guest does not fit into the memory that this host accepts. */
  "host-memory-insufficient": { status: 422, title: "The host lacks memory" },
  /** The request's header lines exceed the limit. */
  "headers-too-large": { status: 431, title: "The header lines are too large" },
  /** Too many event streams are open; close one, or come back. */
  "too-many-streams": { status: 503, title: "Too many event streams are open" },
  /** QEMU did not come up with this definition; the detail carries its own words. */
  "guest-start-failed": { status: 500, title: "The guest could not be started" },
  /** A bug of the agent; its log says more. */
  internal: { status: 500, title: "The agent failed" },

  /**
   * The destination's agent does not answer, or TLS with it is not agreed on; the guest runs on at
   * the source.
   */
  "peer-unreachable": { status: 502, title: "The peer cannot be reached" },
  /** The link to the peer was lost for longer than the migration could wait. */
  "peer-lost": { status: 502, title: "The link to the peer was lost" },
  /** The peer does not accept this agent: the peer token differs. */
  "peer-unauthorized": { status: 502, title: "The peer does not accept this agent" },
  /** The peer refused the migration; the detail carries its reason. */
  "peer-refused": { status: 502, title: "The peer refused" },
  /** The agents have no protocol version in common: upgrade the older one. */
  "protocol-version-unsupported": { status: 502, title: "The agents speak different versions" },
  /** The peer sent a message that the protocol does not allow there. */
  "protocol-violation": { status: 502, title: "The peer broke the protocol" },
  /** A frame's checksum did not match its content. */
  "frame-corrupt": { status: 502, title: "A frame arrived damaged" },
  /** A stream ended in the middle of a frame or of QEMU's data. */
  "stream-truncated": { status: 502, title: "A stream ended too early" },
  /** QEMU's migration stream holds something that this version cannot carry. */
  "stream-unsupported": { status: 422, title: "QEMU's stream is not supported" },
  /** The socket is not there, not permitted, or not a QEMU's monitor that is free; the detail says which. */
  "monitor-not-usable": { status: 422, title: "The monitor cannot be used" },
  /** The QEMU is not in a state, or not of a kind, that this agent can move; the detail says why. */
  "guest-not-attachable": { status: 422, title: "The guest cannot be attached" },
  /** No QEMU can be launched for this guest: one has to be prepared at the destination. */
  "dest-not-prepared": { status: 422, title: "The destination has no QEMU prepared" },
  /** The QEMU that was prepared at the destination is not like the guest's. */
  "prepared-qemu-differs": { status: 422, title: "The prepared QEMU differs" },
  /** The destination's QEMU does not know the guest's machine type. */
  "machine-type-unsupported": { status: 422, title: "The machine type is not supported" },
  /** CPU models such as `host` and `max` differ between hosts. */
  "cpu-model-not-migratable": { status: 422, title: "The CPU model cannot be migrated" },
  /** Guests under TCG lose memory changes while migrating on a QEMU older than 10. */
  "tcg-needs-qemu-10": { status: 422, title: "Migration under TCG needs QEMU 10" },
  /** The QEMU of one of the hosts is outside the supported range. */
  "qemu-version-unsupported": { status: 422, title: "The QEMU version is not supported" },
  /** The guest does not fit into the memory that the destination accepts. */
  "dest-memory-insufficient": { status: 422, title: "The destination lacks memory" },
  /** The destination has a guest of this name. */
  "dest-guest-exists": { status: 409, title: "The destination has a guest of this name" },
  /** A disk cannot travel: its file, its format or its mode does not allow it. */
  "disk-not-migratable": { status: 422, title: "A disk cannot be migrated" },
  /** The image is not what its format says, or leads to other files of the host. */
  "image-not-usable": { status: 422, title: "The image cannot be used" },
  /** An image is only partly there: a migration that filled it has not ended, or did not end well. */
  "image-incomplete": { status: 409, title: "The image is not whole" },
  /** The guest that this image belongs to was handed over: the image is out of date. */
  "image-handed-off": { status: 409, title: "The image is out of date" },
  /** The source cannot put itself between the guest and its disk, or not leave that place again. */
  "disk-not-interposed": { status: 500, title: "The disk could not be put behind the agent" },
  /** Reading, writing or flushing a disk failed at the source; the detail says where. */
  "source-disk-failed": { status: 500, title: "A disk failed at the source" },
  /** Writing or flushing a disk failed at the destination; the detail says where. */
  "dest-disk-failed": { status: 502, title: "A disk failed at the destination" },
  /** The destination's file system has no space for a disk. */
  "dest-disk-full": { status: 507, title: "The destination lacks disk space" },
  /** The destination has an image of this name which is not a leftover of a migration. */
  "dest-disk-exists": { status: 409, title: "The destination has an image of this name" },
  /** The destination's image is not what the disk's mode asks for: size, kind, or not the same. */
  "dest-disk-unsuitable": { status: 422, title: "The destination's image does not fit" },
  /** The guest wrote to a disk while it was held: it must not have run. */
  "disk-written-while-held": { status: 500, title: "A held guest wrote to its disk" },
  /** The source's QEMU ended during the migration. */
  "source-qemu-died": { status: 500, title: "The source's QEMU ended" },
  /** The destination's QEMU ended during the migration. */
  "dest-qemu-died": { status: 502, title: "The destination's QEMU ended" },
  /** The source's QEMU reported that its side of the migration failed. */
  "source-qemu-failed": { status: 500, title: "The source's QEMU gave up" },
  /** The destination's QEMU could not load the guest. */
  "dest-load-failed": { status: 502, title: "The destination's QEMU could not load the guest" },
  /** The destination's QEMU refused a command or did not answer. */
  "dest-qemu-failed": { status: 502, title: "The destination's QEMU failed" },
  /** What arrived is not what was sent; the guest runs on at the source. */
  "digest-mismatch": { status: 502, title: "The digests of both sides differ" },
  /** The guest changes its memory faster than the link carries it. */
  "not-converging": { status: 409, title: "The migration does not converge" },
  /** `totalMsMax` passed before the guest was stunned. */
  "time-limit": { status: 409, title: "The migration took too long" },
  /** The guest was held longer than allowed and was let go at the source. */
  "stun-time-limit": { status: 409, title: "The guest was held for too long" },
  /** Somebody asked for it. */
  cancelled: { status: 409, title: "The migration was cancelled" },
  /** The answer to the hand-over was lost: the guest is paused until both agents have talked. */
  "in-doubt": { status: 409, title: "Ownership is not settled yet" },
  /** `resolve` was asked for a migration whose ownership is clear, or for the side that cannot be. */
  "not-in-doubt": { status: 409, title: "Whose guest it is is not in doubt" },
  /** An operator said whose the guest is. */
  "settled-by-operator": { status: 409, title: "An operator has settled the ownership" },
  /** The witness on the shared directory gave the guest back to the source. */
  "settled-by-witness": { status: 409, title: "The witness has settled the ownership" },
  /** The directory of the witness does not answer. */
  "witness-unreachable": { status: 503, title: "The witness cannot be reached" },
  /** A file of the witness is not what an agent wrote; a person has to look. */
  "witness-damaged": { status: 500, title: "The witness is damaged" },
  /** The directory of the witness cannot be worked with; the detail says why. */
  "witness-not-usable": { status: 500, title: "The witness cannot be used" },
  /** Ownership cannot be written down: nothing may be handed over. Look at the state directory. */
  "journal-failed": { status: 507, title: "The journal cannot be written" },
  /** The journal of a guest's ownership is not what was written to it; a person has to look. */
  "journal-damaged": { status: 500, title: "The journal is damaged" },
  /** Another process has the journal open: a second agent over the same state directory. */
  "journal-locked": { status: 409, title: "The journal is in use" },
  /** A newer agent wrote the journal: start that one, or a newer one. */
  "journal-too-new": { status: 500, title: "The journal is of a newer version" },
  /** The journal has reached its limit. */
  "journal-full": { status: 507, title: "The journal is full" },
  /** The journal cannot be opened; the detail says why. */
  "journal-not-usable": { status: 500, title: "The journal cannot be used" },
  /** The agent was stopped in the middle of the migration. */
  "agent-stopped": { status: 503, title: "The agent was stopped" },
} as const satisfies Record<string, ProblemKind>;

export type ProblemCode = keyof typeof problemCodes;

export function isProblemCode(code: string): code is ProblemCode {
  return Object.hasOwn(problemCodes, code);
}
