import type { Channel } from "@vmferry/agent";
import type { ControlMessage, ControlMessageOf } from "@vmferry/protocol";

export const OFFERED_UUID = "6ba7b810-9dad-41d1-80b4-00c04fd430c8";

/** For tests: a source that offers a guest, and is turned away. */
export class OfferingSource implements Channel {
  readonly sent: ControlMessage[] = [];
  readonly roundTripMs = 1;
  readonly closed: Promise<Error>;
  readonly #said: ControlMessage[];
  readonly #end: (reason: Error) => void;

  constructor(migrationId: string) {
    const { promise, resolve } = Promise.withResolvers<Error>();
    this.closed = promise;
    this.#end = resolve;
    this.#said = [
      {
        ...{ kind: "hello", version: 2, versionMin: 2, features: [] },
        ...{ software: "t", incarnation: "s1" },
      },
      offerOf(migrationId),
    ];
  }

  next(): Promise<never> {
    const message = this.#said.shift();
    return message === undefined
      ? new Promise(() => undefined)
      : Promise.resolve(message as unknown as never);
  }

  send(message: ControlMessage): void {
    this.sent.push(message);
  }

  listen(): void {
    throw new Error("nothing is accepted");
  }

  close(): void {
    this.hangUp();
  }

  hangUp(): void {
    this.#end(new Error("the source has hung up"));
  }

  get rejected(): { readonly code: string; readonly text: string } | null {
    const message = this.sent.find(({ kind }) => kind === "reject");
    return (message ?? null) as ControlMessageOf<"reject"> | null;
  }
}

export function offerOf(migrationId: string): ControlMessageOf<"offer"> {
  const guest = { name: "web1", machine: "pc-q35-10.0", memoryBytes: 2 ** 29 };
  return {
    ...{
      kind: "offer",
      migrationId,
      epoch: 3,
      accel: "tcg",
      uuid: OFFERED_UUID,
      incarnation: "s1",
    },
    guest: { ...guest, boot: { kernel: "vmlinuz" } },
    ...{ qemuVersion: "10.0.2", bulkConnections: 1, disks: [], hashSeed: "00112233445566ff" },
    ...{ postCopy: false, witness: null },
  };
}
