import { pageFileKeyOf, type Logger } from "@vmferry/agent";
import type { ArrivalReport } from "./arrival-report.ts";
import type { Arrival, DestSessionPorts } from "./dest-session-ports.ts";
import { MemoryFetch, type OnLost } from "./memory-fetch.ts";

/** Of a guest that is offered: the lanes of its memory may come before its QEMU takes pages. */
export function arrivingMemory(
  ports: DestSessionPorts,
  { offer, agreement }: Arrival,
  session: { readonly logger: Logger; readonly report: ArrivalReport; readonly onLost: OnLost },
): MemoryFetch {
  const { migrationId, epoch, incarnation } = offer;
  const { logger, report, onLost } = session;
  return MemoryFetch.arriving(
    { ...ports, logger },
    {
      guest: offer.guest.name,
      claim: { migrationId, epoch, generation: 1, incarnation },
      fileKey: pageFileKeyOf(offer),
      compression: agreement.features.has("zstd"),
      maySayAll: agreement.features.has("lacks-all"),
      onFileTrouble: report.fileTrouble.bind(report),
      onFileComplete: () => {
        report.file("complete");
      },
      onLost,
    },
  );
}
