import type { GuestDefinition, GuestObject } from "@vmferry/protocol";

/** What the API needs of the guests of this host. Expected failures are ProblemErrors. */
export interface GuestService {
  list(): readonly GuestObject[];
  /** Throws `guest-not-found`. */
  get(name: string): GuestObject;
  start(definition: GuestDefinition): Promise<GuestObject>;
  powerOff(name: string): Promise<GuestObject>;
}
