import type { Fetching } from "../postcopy/fetching.ts";
import type { PagesFromFile } from "../postcopy/pages-from-file.ts";
import type { PageFetch } from "../postcopy/page-fetch.ts";

/** QEMU has loaded what lets it run: from now on it gets what it lacks, what it asks for first. */
export function beginFetching(
  { placer, requests }: Fetching,
  pages: PageFetch,
  file: PagesFromFile | null,
): void {
  pages.begin(placer, file);
  requests.listen({
    onRequest: (request) => {
      pages.requested(request);
    },
  });
}
