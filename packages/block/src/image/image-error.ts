import { AgentError } from "@vmferry/core";

export type ImagePermission = "read" | "write" | "resize";

export type ImageErrorDetail =
  | {
      readonly code: "image-locked";
      readonly path: string;
      /** What another program does with the image, or does not let others do. */
      readonly permission: ImagePermission;
    }
  | { readonly code: "image-exists"; readonly path: string; readonly reason: string }
  | {
      readonly code: "image-no-space";
      readonly directory: string;
      readonly needBytes: number;
      readonly marginBytes: number;
      readonly freeBytes: number;
    }
  | { readonly code: "image-incomplete"; readonly path: string }
  | { readonly code: "image-not-usable"; readonly path: string; readonly reason: string };

/** Every expected failure of finding, locking and making an image. Requests: see BlockError. */
export class ImageError extends AgentError<ImageErrorDetail> {}

export function imageNotUsable(path: string, reason: string, cause?: unknown): ImageError {
  return new ImageError(
    `the image ${path} cannot be used: ${reason}`,
    { code: "image-not-usable", path, reason },
    { cause },
  );
}
