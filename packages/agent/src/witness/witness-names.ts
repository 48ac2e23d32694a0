import { randomUUID } from "node:crypto";
import { assert } from "@vmferry/core";
import type { StunRef } from "@vmferry/protocol";

/** What a witness writes before it has its name, or a crash left of that. */
export const NEW_NAME = /^[0-9a-f-]{36}\.tmp$/;
export const PROOF_NAME = /^[0-9a-zA-Z-]{1,64}\.proof$/;
export const DECISION_NAME = /^([0-9a-zA-Z-]{1,64})\.[0-9]{1,16}\.[0-9]{1,16}\.decision$/;

const ID_PATTERN = /^[0-9a-zA-Z-]{1,64}$/;

export function newName(): string {
  return `${randomUUID()}.tmp`;
}

export function proofName(migrationId: string): string {
  assert(ID_PATTERN.test(migrationId), "a migration's id is fit for the name of a file");
  return `${migrationId}.proof`;
}

export function decisionName({ migrationId, epoch, generation }: StunRef): string {
  const name = `${migrationId}.${epoch}.${generation}.decision`;
  assert(DECISION_NAME.test(name), "a stun is fit for the name of a file");
  return name;
}
