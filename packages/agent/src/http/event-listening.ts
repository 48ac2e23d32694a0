import type { EventHub } from "../events/event-hub.ts";
import type { EventSubscription } from "../events/event-subscription.ts";
import { ProblemError } from "../problem-error.ts";
import type { MigrationService } from "./migration-service.ts";

/** Every stream costs a socket and a queue; a quarter of the server's connections is left for the rest. */
const STREAMS_MAX = 768;

export interface EventSources {
  readonly hub: EventHub;
  readonly migrations: MigrationService;
  /** A stream that has nothing to say shows this often that it lives. */
  readonly heartbeatMs: number;
}

export interface EventRequest {
  /** Absent: everything that happens on this agent. */
  readonly migrationId: string | undefined;
  readonly afterId: number | undefined;
}

/**
 * All events go on from `afterId` or from now. The stream of one migration tells it from its
 * beginning unless `afterId` is given: whoever starts a migration can only listen afterwards.
 */
export function listenToEvents(sources: EventSources, request: EventRequest): EventSubscription {
  const { hub, migrations } = sources;
  const { migrationId, afterId } = request;
  if (hub.subscriptionCount >= STREAMS_MAX) {
    throw new ProblemError(`${STREAMS_MAX} streams are open.`, { code: "too-many-streams" });
  }
  if (migrationId === undefined) return hub.subscribe({ afterId });
  migrations.get(migrationId);
  return hub.subscribe({ migrationId, afterId: afterId ?? 0 });
}

/** The header comes from a client that reconnects and is newer than what its URL says. */
export function parseAfterId(
  lastEventId: string | string[] | undefined,
  after: string | undefined,
): number | undefined {
  const text = lastEventId ?? after;
  if (text === undefined || text === "") return undefined;
  if (typeof text === "string" && /^\d{1,15}$/.test(text)) return Number(text);
  const field = lastEventId === undefined ? "after" : "last-event-id";
  throw new ProblemError(`${field} is not the id of an event.`, {
    code: "invalid-request",
    errors: [{ field, detail: "must be the id of an event" }],
  });
}
