/** The page file of a guest that arrives: taken from while memory is missing, removed when none is. */
import {
  pageFilePlace,
  removePageFile,
  type Logger,
  type PageFileError,
  type PageFileKey,
} from "@vmferry/agent";
import { messageOf } from "@vmferry/core";
import type { RamBlock } from "@vmferry/qemu";
import { FilePages } from "./file-pages.ts";

export interface ArrivingFileOptions {
  readonly sharedDir: string;
  readonly about: { readonly migrationId: string; readonly epoch: number };
  readonly key: PageFileKey;
  readonly blocks: readonly RamBlock[];
  readonly logger: Logger;
  readonly onTrouble: (error: PageFileError) => void;
  readonly onComplete?: () => void;
}

export class ArrivingFile {
  readonly pages: FilePages;
  readonly #path: string;
  readonly #logger: Logger;

  constructor({ sharedDir, about, key, blocks, ...options }: ArrivingFileOptions) {
    const place = pageFilePlace(sharedDir, about, { key, blocks });
    this.#path = place.path;
    this.#logger = options.logger;
    this.pages = new FilePages({ place, ...options });
  }

  /** Nothing is missing any more. Not waited for: the share may hang. */
  remove(): void {
    this.pages.close();
    removePageFile(this.#path).catch((error: unknown) => {
      const reason = messageOf(error);
      this.#logger.warn({ path: this.#path, reason }, "a page file stays on the share");
    });
  }
}
