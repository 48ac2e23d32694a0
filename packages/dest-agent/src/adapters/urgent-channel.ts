import { createConnection, type Socket } from "node:net";
import { Deferred } from "@vmferry/core";
import { POSTCOPY_OUTSTANDING_BYTES_MAX, QemuSink } from "../ram/qemu-sink.ts";

interface UrgentChannel {
  /** What is written before it is connected waits. */
  readonly sink: QemuSink;
  readonly connected: Promise<void>;
}

/**
 * The second connection of a QEMU with `postcopy-preempt`, by which it takes pages that it has asked
 * for. QEMU listens at `path` still, and has read something of the `first` connection: it knows them
 * by their order. They are one: what ends either ends the other, but for the end of RAM, with which
 * QEMU closes this one and says so by the first.
 */
export function openUrgentChannel(path: string, first: Socket): UrgentChannel {
  const socket = createConnection(path);
  const connected = new Deferred();
  socket.once("connect", () => {
    connected.resolve();
  });
  first.once("close", () => {
    socket.destroy();
  });
  socket.on("error", (error) => {
    connected.reject(error);
    first.destroy();
  });
  socket.on("close", () => {
    connected.reject(new Error("QEMU has closed the connection"));
  });
  socket.resume(); // QEMU says nothing here, and without this its end would not be seen
  const sink = new QemuSink(socket);
  sink.outstandingBytesMax = POSTCOPY_OUTSTANDING_BYTES_MAX;
  return { sink, connected: connected.promise };
}
