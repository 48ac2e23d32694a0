/** The API's guest object, as far as this command reads it. */
export interface Guest {
  readonly name: string;
  readonly state: string;
  readonly epoch: number;
  readonly pid: number | null;
  readonly qemuVersion: string | null;
  readonly serialLog: string | null;
  readonly machine: string;
  readonly accel: string;
  readonly cpu: string;
  readonly vcpus: number;
  readonly memoryBytes: number;
  /** Null for a guest that the agent started, absent from agents that attach to none. */
  readonly attached?: { readonly qmp: string; readonly launchRefusal: string } | null;
  readonly disks: readonly { readonly id: string; readonly image: string; readonly mode: string }[];
}
