/**
 * What the dest has to see in directories that both hosts should share: a file beside each shared
 * image, and one in the shared directory. They are there while the dest looks, and then no more.
 */
import { rm } from "node:fs/promises";
import { proveWitness } from "../session/witness-proof.ts";
import { inTime, type Logger, type WitnessPort } from "@vmferry/agent";
import type { Clock } from "@vmferry/core";
import { writeImageProof } from "../disk/open-disk.ts";
import type { MeasuredDisk } from "./measure-disks.ts";

export interface ProbeProofs {
  /** One a disk, in their order; null where there is nothing to see. */
  readonly disks: readonly (string | null)[];
  readonly witness: string | null;
  remove(): Promise<void>;
}

export interface ProofOptions {
  readonly probeId: string;
  readonly disks: readonly MeasuredDisk[];
  readonly witness: Pick<WitnessPort, "prove" | "forget"> | null;
  readonly logger: Logger;
  readonly clock: Clock;
}

/** The destination has to have time left to look. */
const SHARE_MS_MAX = 3000;

/** Rejects where a proof cannot be written; then none of them stays. */
export async function leaveProofs({
  probeId,
  disks,
  witness,
  logger,
  clock,
}: ProofOptions): Promise<ProbeProofs> {
  const paths: string[] = [];
  const remove = async (): Promise<void> => {
    for (const path of paths.splice(0)) await rm(path, { force: true });
    await witness?.forget(probeId).catch((error: unknown) => {
      logger.warn({ err: error }, "the proof of a preflight stays in the shared directory");
    });
  };
  try {
    const proofs: (string | null)[] = [];
    for (const { definition, path } of disks) {
      if (definition.mode !== "shared") {
        proofs.push(null);
        continue;
      }
      const { proof, proofPath } = await writeImageProof(path, probeId);
      paths.push(proofPath);
      proofs.push(proof);
    }
    const limit = { clock, msMax: SHARE_MS_MAX };
    const proof = await inTime(proveWitness(witness, probeId, logger), limit).catch(() => null);
    return { disks: proofs, witness: proof, remove };
  } catch (error) {
    await remove();
    throw error;
  }
}
