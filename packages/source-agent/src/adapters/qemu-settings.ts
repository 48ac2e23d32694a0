/**
 * The migration settings of a QEMU that somebody else started: where its guest stays, they are what
 * they were. (An agent that is killed in between leaves its own.)
 */
import type { Guest, Logger } from "@vmferry/agent";
import type { MigrationCapability, QmpClient, SetMigrationParameters } from "@vmferry/qemu";

/** Those that SourceQemu sets. */
const CAPABILITIES: readonly MigrationCapability[] = [
  ...(["return-path", "events", "pause-before-switchover", "auto-converge"] as const),
];

/** Asks what they are; the function that it resolves with sets them back. */
export async function keepSettings(qmp: Pick<QmpClient, "execute">): Promise<() => Promise<void>> {
  const capabilities = await qmp.execute("query-migrate-capabilities");
  const is = await qmp.execute("query-migrate-parameters");
  const bandwidth = is.availSwitchoverBandwidthBytesPerSecond;
  const trigger = is.throttleTriggerThresholdPercent;
  const parameters: SetMigrationParameters = {
    "max-bandwidth": is.maxBandwidthBytesPerSecond,
    "downtime-limit": is.downtimeLimitMs,
    "cpu-throttle-initial": is.cpuThrottleInitialPercent,
    ...(bandwidth === null ? {} : { "avail-switchover-bandwidth": bandwidth }),
    ...(trigger === null ? {} : { "throttle-trigger-threshold": trigger }),
  };
  return async () => {
    await qmp.execute("migrate-set-capabilities", {
      capabilities: CAPABILITIES.map((capability) => ({
        ...{ capability, state: capabilities.get(capability) === true },
      })),
    });
    await qmp.execute("migrate-set-parameters", parameters);
  };
}

/** Those of one guest during one attempt to move it; of a guest of the agent's own, none. */
export class LentSettings {
  readonly #guest: Pick<Guest, "qmp" | "attachment" | "alive">;
  readonly #logger: Logger;
  #restore: () => Promise<void> = () => Promise.resolve();

  constructor(guest: Pick<Guest, "qmp" | "attachment" | "alive">, logger: Logger) {
    this.#guest = guest;
    this.#logger = logger;
  }

  async remember(): Promise<void> {
    const { attachment, qmp } = this.#guest;
    if (attachment !== null) this.#restore = await keepSettings(qmp);
  }

  async giveBack(): Promise<void> {
    if (!this.#guest.alive) return;
    try {
      await this.#restore();
    } catch (error) {
      this.#logger.warn({ err: error }, "the migration settings of the guest's QEMU stay ours");
    }
  }
}
