/** Every message that was sent in some world of a search, by number. */
import type { DestEvent } from "../dest-ownership.ts";
import type { SourceEvent } from "../source-ownership.ts";
import type { StunRef } from "../stun-ref.ts";
import { Names } from "./names.ts";
import { MESSAGES_MAX } from "./world.ts";

/** `stream`: what QEMU sends to QEMU, up to the end. Its digest stands for all that it brings. */
export interface Message {
  readonly kind: "offer" | "stream" | "stunned" | "token" | "abort" | Answer;
  readonly stun: StunRef;
  readonly digest: string;
  /** Which life of the dest's journal says so. */
  readonly incarnation: string;
}

type Answer = "prepared" | "taken" | "complete" | "refused";

/** A message as it is delivered. */
export interface Mail {
  readonly id: number;
  readonly message: Message;
  readonly to: "source" | "dest" | "dest-qemu";
  /** Its number in the machine that it is for. */
  readonly event: number;
  readonly label: string;
}

/** Numbers the events of both machines. */
export interface EventNames {
  readonly source: Names<SourceEvent>;
  readonly dest: Names<DestEvent>;
}

export class Messages {
  readonly #names = new Names<Message>(MESSAGES_MAX);
  readonly #mail: Mail[] = [];
  readonly #events: EventNames;
  readonly #byReceiver: Readonly<Record<Mail["to"], Mail[]>> = {
    source: [],
    dest: [],
    "dest-qemu": [],
  };

  constructor(events: EventNames) {
    this.#events = events;
  }

  idOf(message: Message): number {
    const id = this.#names.idOf(message);
    if (id === this.#mail.length) {
      const mail = this.#mailOf(id, message);
      this.#mail.push(mail);
      this.#byReceiver[mail.to].push(mail);
    }
    return id;
  }

  at(id: number): Mail {
    return this.#mail[id]!;
  }

  all(to: Mail["to"]): readonly Mail[] {
    return this.#byReceiver[to];
  }

  #mailOf(id: number, message: Message): Mail {
    const { kind, stun, digest, incarnation } = message;
    const label = `${kind.toUpperCase()}(${stun.migrationId}${digest === "" ? "" : ` ${digest}`})`;
    const toDest = (event: DestEvent): Mail => {
      return { id, message, to: "dest", event: this.#events.dest.idOf(event), label };
    };
    const toSource = (event: SourceEvent): Mail => {
      return { id, message, to: "source", event: this.#events.source.idOf(event), label };
    };
    switch (kind) {
      case "stream":
        return { id, message, to: "dest-qemu", event: -1, label };
      case "stunned":
        return toDest({ kind, stun, digest });
      case "offer":
      case "token":
      case "abort":
        return toDest({ kind, stun });
      case "prepared":
        return toSource({ kind, stun, incarnation, digest });
      case "taken":
      case "complete":
      case "refused":
        return toSource({ kind, stun, incarnation });
    }
  }
}

/** Of migration m1, m2, …, from 0 on. */
export function attemptOf({ migrationId }: StunRef): number {
  return migrationId.charCodeAt(1) - "1".charCodeAt(0);
}

export function digestOf(version: number): string {
  return `v${version}`;
}

export function versionOf(digest: string): number {
  return digest.charCodeAt(1) - "0".charCodeAt(0);
}
