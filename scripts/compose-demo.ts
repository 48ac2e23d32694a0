/*
 * For docker compose, where it is a service of its own: starts the guest `demo` at the source,
 * through its API, unless it lives already at one of the two agents.
 */
import { open, readFile } from "node:fs/promises";
import { join } from "node:path";
import { AgentApi } from "@vmferry/cli";
import { assert } from "@vmferry/core";

const MIB = 1024 * 1024;
const DISK_BYTES = 64 * MIB;
const LEFT_OVER = ["handed-off", "stopped"];
const CMDLINE = "console=ttyS0 quiet panic=-1 tsc=unstable no_timer_check";
const WORKLOAD = {
  mem: "64M",
  rate: "1000",
  diskrate: "50",
  disksweep: "8",
};

const { VMFERRY_API_TOKEN_FILE: tokenFile, VMFERRY_IMAGE_DIR: imageDir } = process.env;
assert(tokenFile !== undefined && imageDir !== undefined, "docker-compose.yml sets both");
const token = (await readFile(tokenFile, "utf8")).trim();
const source = new AgentApi({ url: new URL("http://source:7070/"), token });
const dest = new AgentApi({ url: new URL("http://dest:7080/"), token });

const there = await whereDemoLives();
if (there !== null) console.log(`demo is there already: ${there}`);
else {
  const { name, state } = await source.startGuest(await defineDemo(imageDir));
  console.log(`${name} is ${state} at ${source.url.host}`);
}

/** Where an agent does not answer this fails, and nothing is started: the guest may run there. */
async function whereDemoLives(): Promise<string | null> {
  for (const api of [source, dest]) {
    const demo = (await api.guests()).find(({ name }) => name === "demo");
    const lives = demo !== undefined && !LEFT_OVER.includes(demo.state);
    if (lives) return `${demo.state} at ${api.url.host}`;
  }
  return null;
}

/**
 * With a disk for this life alone: what a guest has left for another host is not used again, and
 * what has arrived there is not overwritten.
 */
async function defineDemo(directory: string): Promise<object> {
  const image = `demo-${new Date().toISOString().replace(/[-:]|\.\d+/g, "")}.raw`;
  const file = await open(join(directory, image), "wx");
  await file.truncate(DISK_BYTES);
  await file.close();
  const parameters = Object.entries(WORKLOAD).map(([key, value]) => `vmferry.${key}=${value}`);
  const cmdline = [CMDLINE, ...parameters].join(" ");
  return {
    name: "demo",
    machine: "pc-q35-10.0",
    memoryBytes: 256 * MIB,
    boot: { kernel: "vmlinuz", initrd: "initrd.img", cmdline },
    disks: [{ id: "disk0", image }],
  };
}
