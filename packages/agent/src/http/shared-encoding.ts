import type { AgentEvent } from "@vmferry/protocol";

/** Listeners that keep up want the same few events at the same time; who lags pays for itself. */
const RECENT_MAX = 64;

/**
 * `encode`, called once for an event however many listeners take the result. Results of the latest
 * events are kept, and of no others: a replay of thousands is not worth keeping twice.
 */
export function sharedEncoding<Encoded>(
  encode: (event: AgentEvent) => Encoded,
): (event: AgentEvent) => Encoded {
  const recent = new Map<AgentEvent, Encoded>();
  return (event) => {
    const known = recent.get(event);
    if (known !== undefined) return known;
    const encoded = encode(event);
    recent.set(event, encoded);
    const [oldest] = recent.keys();
    if (recent.size > RECENT_MAX && oldest !== undefined) recent.delete(oldest);
    return encoded;
  };
}
