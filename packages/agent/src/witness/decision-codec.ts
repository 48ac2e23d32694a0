import { Type, type Static } from "typebox";
import { Compile } from "typebox/compile";
import { assert } from "@vmferry/core";

export const DECISION_BYTES_MAX = 1024;

const Id = Type.String({ pattern: "^[0-9a-zA-Z-]{1,64}$" });
const Count = Type.Integer({ minimum: 0, maximum: Number.MAX_SAFE_INTEGER });

const DecisionRecordSchema = Type.Object(
  {
    version: Type.Literal(1),
    decision: Type.Union([Type.Literal("taken"), Type.Literal("revoked")]),
    migrationId: Id,
    epoch: Count,
    generation: Count,
    /** Who decided; for people. */
    incarnation: Id,
  },
  { additionalProperties: false },
);

const validator = Compile(DecisionRecordSchema);

export type DecisionRecord = Omit<Readonly<Static<typeof DecisionRecordSchema>>, "version">;
/** `taken` by the dest, which may run the guest then; `revoked` by the source, which may then. */
export type Decision = DecisionRecord["decision"];

/** JSON, because a person may have to read it. */
export function encodeDecision(record: DecisionRecord): Buffer {
  const { decision, migrationId, epoch, generation, incarnation } = record;
  const value = { version: 1, decision, migrationId, epoch, generation, incarnation };
  assert(validator.Check(value), "a decision that is written can be read");
  return Buffer.from(JSON.stringify(value));
}

/** Null for what is no decision, or one of another version. */
export function decodeDecision(bytes: Buffer): DecisionRecord | null {
  if (bytes.length > DECISION_BYTES_MAX) return null;
  try {
    const text = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true }).decode(bytes);
    const value: unknown = JSON.parse(text);
    return validator.Check(value) ? value : null;
  } catch {
    // No text, or no JSON: the caller says that it is damaged.
    return null;
  }
}
