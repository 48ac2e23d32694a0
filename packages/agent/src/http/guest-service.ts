import type { GuestAttach, GuestDefinition, GuestObject } from "@vmferry/protocol";

/** What the API needs of the guests of this host. Expected failures are ProblemErrors. */
export interface GuestService {
  list(): readonly GuestObject[];
  /** Throws `guest-not-found`. */
  get(name: string): GuestObject;
  start(definition: GuestDefinition): Promise<GuestObject>;
  /** Throws `monitor-not-usable`, `guest-not-attachable`, `guest-attached` and others. */
  attach(request: GuestAttach): Promise<GuestObject>;
  powerOff(name: string): Promise<GuestObject>;
}
