import { expect, test } from "vitest";
import { keepSettings } from "./qemu-settings.ts";

test("what was set before is set again", async () => {
  const sent: unknown[] = [];
  const answers: Record<string, unknown> = {
    "query-migrate-capabilities": new Map([["events", true]]),
    "query-migrate-parameters": {
      maxBandwidthBytesPerSecond: 134_217_728,
      downtimeLimitMs: 300,
      cpuThrottleInitialPercent: 20,
      availSwitchoverBandwidthBytesPerSecond: 0,
      throttleTriggerThresholdPercent: null,
    },
  };
  const execute = (command: string, given?: unknown): Promise<unknown> => {
    if (given !== undefined) sent.push(command, given);
    return Promise.resolve(answers[command]);
  };
  const restore = await keepSettings({ execute } as never);
  expect(sent).toEqual([]);
  await restore();
  expect(sent).toEqual([
    "migrate-set-capabilities",
    {
      capabilities: [
        { capability: "return-path", state: false },
        { capability: "events", state: true },
        { capability: "pause-before-switchover", state: false },
        { capability: "auto-converge", state: false },
      ],
    },
    "migrate-set-parameters",
    {
      "max-bandwidth": 134_217_728,
      "downtime-limit": 300,
      "cpu-throttle-initial": 20,
      "avail-switchover-bandwidth": 0,
    },
  ]);
});
