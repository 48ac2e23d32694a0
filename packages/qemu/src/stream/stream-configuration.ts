import type { RecordBuffer } from "./record-buffer.ts";
import { PAGE_BYTES } from "./stream-format.ts";
import { StreamError } from "./stream-error.ts";
import { checkLimit } from "./stream-limits.ts";
import { unread, type Reading } from "./stream-want.ts";

const MACHINE_NAME_BYTES_MAX = 255;
const CAPABILITY_COUNT_MAX = 64;
const UUID_BYTES = 16;
/** Both change what the RAM section looks like. */
const REFUSED_CAPABILITIES = ["x-ignore-shared", "mapped-ram"];

/** The machine type; which one it is, is for the destination QEMU to compare. */
export function* readConfiguration(record: RecordBuffer): Reading<void> {
  yield unread(4);
  const nameBytes = record.u32();
  checkLimit("machine name", nameBytes, MACHINE_NAME_BYTES_MAX);
  yield unread(nameBytes);
}

/** A subsection of the configuration: they have no length, so one that is not known ends here. */
export function* readConfigurationSubsection(record: RecordBuffer): Reading<void> {
  yield unread(1);
  const nameBytes = record.u8();
  yield unread(nameBytes + 4);
  const name = record.text(nameBytes);
  const version = record.u32();
  if (version === 1 && name === "configuration/target-page-bits") {
    yield unread(4);
    if (2 ** record.u32() !== PAGE_BYTES) throw unsupported(name);
  } else if (version === 1 && name === "configuration/capabilities") {
    yield* readCapabilities(record);
  } else if (version === 1 && name === "configuration/uuid") {
    yield unread(UUID_BYTES);
  } else throw unsupported(name);
}

function* readCapabilities(record: RecordBuffer): Reading<void> {
  yield unread(4);
  const count = record.u32();
  checkLimit("capability count", count, CAPABILITY_COUNT_MAX);
  for (let index = 0; index < count; index++) {
    yield unread(1);
    const nameBytes = record.u8();
    yield unread(nameBytes);
    const capability = record.text(nameBytes);
    if (REFUSED_CAPABILITIES.includes(capability)) {
      throw unsupported(`configuration/capabilities ${capability}`);
    }
  }
}

function unsupported(subsection: string): StreamError {
  return new StreamError(`a configuration that is not supported: ${subsection}`, {
    code: "stream-unsupported-configuration",
    subsection,
  });
}
