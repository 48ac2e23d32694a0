/**
 * Named places where a test makes a running agent fail: `VMFERRY_FAILPOINTS=name=action[@n],…`, where
 * `n` counts the passages (1 by default) and the action is taken once:
 *
 *   kill        SIGKILL to this process
 *   stop        SIGSTOP to this process: whoever sees it stand still may do what it likes, and go on
 *   fail:ENOSPC fails there with this error of the system
 *
 * Without the variable a failpoint is one comparison; those of records, messages and commands make
 * up a short name first, those on the way of the guest's writes do not.
 */
import { writeSync } from "node:fs";
import { AgentError } from "./agent-error.ts";

interface Plan {
  readonly action: string;
  left: number;
}

export class FailpointError extends AgentError<{ readonly code: string }> {}

const VARIABLE = "VMFERRY_FAILPOINTS";
const SPEC = /^(?<name>[a-z0-9._-]+)=(?<action>kill|stop|fail:[A-Z]+)(@(?<n>[1-9][0-9]*))?$/;

const plans = readPlans(process.env[VARIABLE] ?? "");
/** `VMFERRY_FAILPOINTS=trace`: writes down each name at its first passage. */
const traced: Set<string> | null = process.env[VARIABLE] === "trace" ? new Set() : null;

/** Throws what the environment asks for at this place, if anything. */
export function failpoint(name: string): void {
  if (plans !== null || traced !== null) pass(name);
}

function pass(name: string): void {
  if (traced !== null && !traced.has(name)) {
    traced.add(name);
    writeSync(2, `failpoint ${name}\n`);
  }
  const plan = plans?.get(name);
  if (plan === undefined || plan.left === 0) return;
  plan.left -= 1;
  if (plan.left > 0) return;
  writeSync(2, `failpoint ${name}: ${plan.action}\n`);
  if (plan.action === "kill") process.kill(process.pid, "SIGKILL");
  else if (plan.action === "stop") process.kill(process.pid, "SIGSTOP");
  else {
    const code = plan.action.slice("fail:".length);
    throw new FailpointError(`${code}: failpoint ${name}`, { code });
  }
}

function readPlans(text: string): ReadonlyMap<string, Plan> | null {
  if (text === "" || text === "trace") return null;
  const plans = new Map<string, Plan>();
  for (const spec of text.split(",")) {
    const groups = SPEC.exec(spec)?.groups;
    if (groups === undefined) throw new Error(`${VARIABLE}: ${spec} is not name=action[@n]`);
    plans.set(groups["name"]!, { action: groups["action"]!, left: Number(groups["n"] ?? 1) });
  }
  return plans;
}
