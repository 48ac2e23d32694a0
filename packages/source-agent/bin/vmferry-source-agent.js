#!/usr/bin/env -S UV_THREADPOOL_SIZE=16 node --initial-heap-size=64 --disable-warning=ExperimentalWarning
// The heap begins larger than Node's default, so that V8 does not collect it for every few MiB of
// frames: docs/decisions/0005-garbage.md. More threads than Node has by default, so that a guest's
// request to its disk finds one: docs/decisions/0011-mirror-without-waiting.md.
// The warning would be of the page that is made with Node's own type stripping: docs/decisions/0024-dashboard.md.
if (Number(process.versions.node.split(".")[0]) < 24) {
  process.stderr.write(
    "vmferry-source-agent: needs Node.js 24 or newer, this is " +
      process.versions.node +
      ". Run it as `npx vmferry-source-agent` from the root of the checkout.\n",
  );
  process.exit(2);
}
const { main } = await import("../src/main.ts");
await main(process.argv.slice(2));
