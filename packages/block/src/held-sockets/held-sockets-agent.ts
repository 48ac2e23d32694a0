// What an agent does with a socket, as a process of its own that a test can kill: it accepts at the
// path of its argument, and says its pid to whoever connects.

import { createServer } from "node:net";
import { dirname } from "node:path";
import { HeldSockets } from "./held-sockets.ts";

const path = process.argv[2]!;
const sockets = await HeldSockets.open({
  directory: dirname(path),
  onTrouble: (reason) => process.stderr.write(`${reason}\n`),
});
const server = createServer((socket) => socket.end(`${process.pid}`));
const { descriptor: fd, held } = await sockets.listen(path);
await held;
server.listen({ fd }, () => process.stdout.write("listening\n"));
