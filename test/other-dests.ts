// Dest agents of another kind than the lab's own, for one test each.

import { join } from "node:path";
import { afterEach } from "vitest";
import { assert } from "@vmferry/core";
import { AgentProcess } from "@vmferry/testkit";
import type { ProxiedTestLab } from "./test-lab.ts";

/** Starts one, which the source takes for its peer until the test is over. */
export type ReplaceDest = (
  flags: readonly string[],
  environment?: Readonly<Record<string, string>>,
) => Promise<AgentProcess>;

/** Registers the hook that ends them. */
export function useOtherDests(test: ProxiedTestLab): ReplaceDest {
  const started: AgentProcess[] = [];
  let count = 0;
  afterEach(async () => {
    for (const agent of started.splice(0)) await agent.kill();
  });
  return async (flags, environment = {}) => {
    const { lab, proxy } = test;
    const dest = await AgentProcess.start({
      role: "dest",
      environment,
      flags: [
        ...["--state-dir", join(lab.directory, `other${++count}`)],
        ...["--image-dir", lab.imagePath("source")],
        ...["--api-listen", "127.0.0.1:0", "--peer-listen", "127.0.0.1:0", ...flags],
      ],
    });
    started.push(dest);
    assert(dest.peerPort !== null, "a dest listens for source agents");
    proxy.towards(dest.peerPort);
    return dest;
  };
}
