import type { Agreement, ControlMessageOf } from "@vmferry/protocol";

/** What became of the question to the dest. */
export type PeerAnswer =
  /** There was no agreement, or no link at all. */
  | { readonly kind: "failed"; readonly error: unknown }
  /** It speaks with us, and does not say what it would make of the guest: an older agent, or a slow one. */
  | { readonly kind: "silent"; readonly version: number; readonly reason: string }
  | {
      readonly kind: "answered";
      readonly version: Agreement["version"];
      /** 0 where none was measured. */
      readonly roundTripMs: number;
      /** The dest's date, less ours at that moment. */
      readonly clockAheadMs: number;
      readonly result: ControlMessageOf<"probe-result">;
    };
