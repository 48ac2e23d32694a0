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
  readonly disks: readonly { readonly id: string; readonly image: string; readonly mode: string }[];
}
