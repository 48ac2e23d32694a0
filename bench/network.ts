// Two hosts that are two network namespaces. Guests cross one veth pair, limited at both ends; the
// benchmark itself reaches the agents over another pair each, so that what it asks is not counted.
//
//   root ──api0── source ══data0══data0══ dest ──api0── root
//
// Addresses are of 198.18.0.0/15, which is set aside for benchmarks. Each run has namespaces of its
// own: what TCP learned about a path in one run must not help or harm the next.

import type { Link } from "./cases.ts";
import { runCommand } from "./run-command.ts";

/** With this begins the name of everything that may outlast a benchmark that is killed. */
export const OWN_PREFIX = `vmferry-bench-${process.pid}-`;
/** Of the /30 networks in 198.19.0.0/16, two for each process that may run a benchmark. */
const SLOTS = 8192;
const KILL_LOOKS_MAX = 100;
const KILL_LOOK_MS = 20;

export interface BenchHost {
  readonly namespace: string;
  /** What a command has to begin with to run on this host. */
  readonly enter: readonly string[];
  /** On the limited link. */
  readonly dataAddress: string;
  readonly apiAddress: string;
  /** The benchmark's end of the management pair. */
  readonly apiDevice: string;
}

export class BenchNetwork {
  readonly source = describeHost("source", 0);
  readonly dest = describeHost("dest", 1);

  static async open(link: Link): Promise<BenchNetwork> {
    const network = new BenchNetwork();
    try {
      await network.#build(link);
      return network;
    } catch (error) {
      await network.close();
      throw error;
    }
  }

  /** Both directions, as the source's end of the limited link has counted them. */
  async wireBytes(): Promise<number> {
    const { namespace } = this.source;
    const words = ["-n", namespace, "-json", "-stats", "link", "show", "dev", "data0"];
    const [device] = JSON.parse(await runCommand("ip", ...words)) as [
      { stats64: { rx: { bytes: number }; tx: { bytes: number } } },
    ];
    return device.stats64.rx.bytes + device.stats64.tx.bytes;
  }

  /** Ends what still runs on the two hosts, then removes them. */
  async close(): Promise<void> {
    const existing = await listNamespaces();
    for (const { namespace, apiDevice } of [this.source, this.dest]) {
      if (!existing.includes(namespace)) continue;
      // A device that goes with its namespace goes some time later, and its name is needed again.
      await runCommand("ip", "link", "del", apiDevice).catch(() => undefined);
      await removeNamespace(namespace);
    }
  }

  async #build(link: Link): Promise<void> {
    const { source, dest } = this;
    for (const { namespace } of [source, dest]) {
      await runCommand("ip", "netns", "add", namespace);
      await runCommand("ip", "-n", namespace, "link", "set", "lo", "up");
    }
    await addPair(["-n", source.namespace], "data0", { name: "data0", host: dest });
    for (const host of [source, dest]) {
      await bringUp(["-n", host.namespace], "data0", host.dataAddress);
      if (link.rate !== null) await limitRate(host.namespace, link.rate);
      await addPair([], host.apiDevice, { name: "api0", host });
      await bringUp(["-n", host.namespace], "api0", host.apiAddress);
      await bringUp([], host.apiDevice, benchAddress(host.apiAddress));
    }
  }
}

export async function listNamespaces(): Promise<readonly string[]> {
  const lines = (await runCommand("ip", "netns", "list")).split("\n");
  return lines.flatMap((line) => line.split(" ")[0] || []);
}

/** Ends what still runs there, first. */
export async function removeNamespace(namespace: string): Promise<void> {
  await endProcesses(namespace);
  await runCommand("ip", "netns", "del", namespace);
}

function describeHost(role: "source" | "dest", index: number): BenchHost {
  const namespace = `${OWN_PREFIX}${role}`;
  const subnet = ((process.pid % SLOTS) * 2 + index) * 4;
  return {
    namespace,
    enter: ["nsenter", `--net=/run/netns/${namespace}`],
    dataAddress: `198.18.0.${index + 1}`,
    apiAddress: `198.19.${subnet >> 8}.${(subnet & 255) + 2}`,
    apiDevice: `vfb${process.pid}${role.slice(0, 1)}`,
  };
}

/** The other address of the /30. */
function benchAddress(apiAddress: string): string {
  const cut = apiAddress.lastIndexOf(".") + 1;
  return `${apiAddress.slice(0, cut)}${Number(apiAddress.slice(cut)) - 1}`;
}

function addPair(
  where: readonly string[],
  name: string,
  peer: { readonly name: string; readonly host: BenchHost },
): Promise<string> {
  const words = ["link", "add", name, "type", "veth", "peer", "name", peer.name];
  return runCommand("ip", ...where, ...words, "netns", peer.host.namespace);
}

async function bringUp(where: readonly string[], device: string, address: string): Promise<void> {
  // Without an address of its own, IPv6 does not add its chatter to what is counted.
  await runCommand("ip", ...where, "link", "set", device, "addrgenmode", "none");
  await runCommand("ip", ...where, "addr", "add", `${address}/30`, "dev", device);
  await runCommand("ip", ...where, "link", "set", device, "up");
}

function limitRate(namespace: string, rate: string): Promise<string> {
  const shape = ["tbf", "rate", rate, "burst", "512kb", "latency", "50ms"];
  return runCommand("tc", "-n", namespace, "qdisc", "add", "dev", "data0", "root", ...shape);
}

async function endProcesses(namespace: string): Promise<void> {
  for (let look = 0; look < KILL_LOOKS_MAX; look++) {
    const pids = (await runCommand("ip", "netns", "pids", namespace)).split("\n").filter(Boolean);
    if (pids.length === 0) return;
    for (const pid of pids) {
      try {
        process.kill(Number(pid), "SIGKILL");
      } catch (error) {
        // It ended in between.
        if ((error as NodeJS.ErrnoException).code !== "ESRCH") throw error;
      }
    }
    await new Promise((resolve) => setTimeout(resolve, KILL_LOOK_MS));
  }
}
