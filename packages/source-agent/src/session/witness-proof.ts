import type { Logger, WitnessPort } from "@vmferry/agent";

/**
 * What the dest has to see in its own shared directory. Null where there is no witness: the hand-over
 * is as safe then, but only a person can end a doubt.
 */
export async function proveWitness(
  witness: Pick<WitnessPort, "prove"> | null,
  migrationId: string,
  logger: Logger,
): Promise<string | null> {
  try {
    return (await witness?.prove(migrationId)) ?? null;
  } catch (error) {
    logger.warn({ err: error }, "the shared directory is no witness; going without");
    return null;
  }
}
