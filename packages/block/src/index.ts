export type { BlockDevice, Extent } from "./block-device.ts";
export { BlockError, type BlockErrno } from "./block-error.ts";
export { HeldExport } from "./held-sockets/held-export.ts";
export { HeldSockets, type HeldSocketsOptions } from "./held-sockets/held-sockets.ts";
export { openCachedRead, type CachedRead } from "./image/cached-read.ts";
export {
  checkNewImage,
  createImage,
  type CreatedImage,
  type CreateImageOptions,
} from "./image/create-image.ts";
export { checkFreeSpace } from "./image/free-space.ts";
export { lockExclusively } from "./image/exclusive-lock.ts";
export { inspectQcow2, type Qcow2Header } from "./image/qcow2-header.ts";
export { ImageError, type ImageErrorDetail } from "./image/image-error.ts";
export { ImageFile, type OpenImageOptions } from "./image/image-file.ts";
export { lockImage, lockImageStill, type ImageLock } from "./image/image-lock.ts";
export { MapFile, readBootId } from "./image/map-storage.ts";
export type { MarkState, MarkSubject } from "./image/mark-codec.ts";
export { isIncomplete, PartialMark } from "./image/partial-mark.ts";
export { PresentMap } from "./image/present-map.ts";
export { takeImage } from "./image/take-image.ts";
export { syncDirectory } from "./image/sync-directory.ts";
export { NbdServer, type NbdServerOptions } from "./nbd/nbd-server.ts";
