#!/usr/bin/env node
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
