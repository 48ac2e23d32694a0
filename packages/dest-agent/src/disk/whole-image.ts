/**
 * An image of which nothing is missing, behind the export of an agent that has died: QEMU may not stand
 * on it alone yet. Its present map lies beside it until QEMU does, and says one thing more: whether the
 * image has failed to store something. A flush that has failed must not succeed after a restart.
 */
import { ReopenedImage, type Logger } from "@vmferry/agent";
import { MapFile, PresentMap } from "@vmferry/block";

export async function reopenWhole(path: string, logger: Logger): Promise<ReopenedImage> {
  const isSuspect = await withMap(path, async (map) => map !== null && PresentMap.hasFailed(map));
  return ReopenedImage.open(path, logger, {
    isSuspect,
    onSuspect: () =>
      withMap(path, async (map) => {
        if (map === null) throw new Error(`${path} has no present map any more`);
        await PresentMap.failUnopened(map);
      }),
  });
}

async function withMap<T>(path: string, use: (map: MapFile | null) => Promise<T>): Promise<T> {
  const map = await MapFile.open(path);
  try {
    return await use(map);
  } finally {
    await map?.close();
  }
}
