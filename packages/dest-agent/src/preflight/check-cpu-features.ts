import { fails, passes, type Finding } from "@vmferry/agent";
import type { QemuAnswers } from "@vmferry/qemu";

const HINT =
  "Start the guest with a CPU model that both hosts have, such as the older one of the two hosts'.";

/** Of the model, not of what its definition adds to it: that QEMU judges when it starts. */
export function checkCpuFeatures(
  model: string,
  { cpuModels }: Pick<QemuAnswers, "cpuModels">,
): Finding {
  const lacking = cpuModels.get(model);
  if (lacking === undefined) {
    return fails(`The destination's QEMU does not know the CPU model ${model}.`, HINT);
  }
  if (lacking.length > 0) {
    return fails(`The destination lacks ${lacking.join(", ")} of the CPU model ${model}.`, HINT);
  }
  return passes(`The destination has all of the CPU model ${model}.`);
}
