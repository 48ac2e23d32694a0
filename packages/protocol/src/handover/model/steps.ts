import { DestSteps } from "./dest-steps.ts";
import { faultSteps } from "./fault-steps.ts";
import type { Model } from "./model.ts";
import { SourceSteps } from "./source-steps.ts";
import type { Emit, World } from "./world.ts";

/** Lists what can happen next. */
export function stepsFrom(model: Model, emit: Emit): (world: World) => void {
  const source = new SourceSteps(model, emit);
  const dest = new DestSteps(model, emit);
  return (world) => {
    source.of(world);
    dest.of(world);
    faultSteps(model, world, emit);
  };
}
