import { QmpError } from "./qmp-error.ts";
import { readQmpEvent, type QmpEvent } from "./qmp-event.ts";
import { QmpFields } from "./qmp-fields.ts";
import type { UncheckedObject } from "./qmp-line-reader.ts";
import type { CommandReply } from "./pending-commands.ts";
import type { QemuVersion } from "./qemu-version.ts";
import { readVersion } from "./qmp-results.ts";

export type QmpMessage =
  | { readonly kind: "greeting"; readonly version: QemuVersion }
  | { readonly kind: "event"; readonly event: QmpEvent }
  | { readonly kind: "reply"; readonly id: unknown; readonly reply: CommandReply };

/** Tells the kinds of message apart. Throws `qmp-protocol` for one that is of none. */
export function readQmpMessage(message: UncheckedObject): QmpMessage {
  if (Object.hasOwn(message, "event")) return { kind: "event", event: readQmpEvent(message) };
  if (Object.hasOwn(message, "QMP")) return { kind: "greeting", version: readGreeting(message) };
  const id = Object.hasOwn(message, "id") ? message["id"] : undefined;
  if (Object.hasOwn(message, "return")) {
    return { kind: "reply", id, reply: { kind: "return", value: message["return"] } };
  }
  if (Object.hasOwn(message, "error")) {
    const error = new QmpFields(message, "error reply").fields("error");
    const reply = {
      kind: "error",
      errorClass: error.string("class"),
      description: error.string("desc"),
    } as const;
    return { kind: "reply", id, reply };
  }
  const reason = "a message that is no greeting, event or reply";
  throw new QmpError(`QEMU sent ${reason}`, { code: "qmp-protocol", reason });
}

function readGreeting(message: UncheckedObject): QemuVersion {
  const qmp = new QmpFields(message, "greeting").fields("QMP");
  return readVersion(qmp.fields("version").fields("qemu"));
}
