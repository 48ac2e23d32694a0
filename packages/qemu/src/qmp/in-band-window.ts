/**
 * How many ordinary commands QEMU is given at a time. In a session with out-of-band commands it
 * reads ahead, eight commands at most, and then nothing at all: a command that is to overtake them
 * has to find it reading. Commands beyond that wait here.
 */
const IN_FLIGHT_MAX = 8;

interface WaitingLine {
  readonly id: string;
  readonly line: string;
}

export interface InBandPorts {
  readonly write: (line: string) => void;
  /** False for a command that was given up meanwhile; it is not sent any more. */
  readonly isWanted: (id: string) => boolean;
}

export class InBandWindow {
  readonly #ports: InBandPorts;
  readonly #inFlight = new Set<string>();
  readonly #waiting: WaitingLine[] = [];

  constructor(ports: InBandPorts) {
    this.#ports = ports;
  }

  send(id: string, line: string): void {
    this.#waiting.push({ id, line });
    this.#goOn();
  }

  /** QEMU has answered, in time or too late. */
  answered(id: unknown): void {
    if (typeof id === "string" && this.#inFlight.delete(id)) this.#goOn();
  }

  #goOn(): void {
    while (this.#inFlight.size < IN_FLIGHT_MAX) {
      const next = this.#waiting.shift();
      if (next === undefined) return;
      if (!this.#ports.isWanted(next.id)) continue;
      this.#inFlight.add(next.id);
      this.#ports.write(next.line);
    }
  }
}
