/** Starts the QEMU of a guest, and keeps the record by which a restarted agent finds it again. */
import type { GuestDefinition } from "@vmferry/protocol";
import { launchGuest, type Accelerator, type DiskBacking, type GuestProcess } from "@vmferry/qemu";
import { startedAs } from "./earlier-guests.ts";
import { removeGuestRecord, writeGuestRecord, type GuestRecord } from "./guest-record.ts";
import { refuseUnfitImages } from "./image-marks.ts";
import { launchProblem } from "./launch-problem.ts";

const LAUNCH_MS_MAX = 30_000;

export interface GuestLaunch {
  readonly definition: GuestDefinition;
  readonly accel: Accelerator;
  readonly uuid: string;
  readonly epoch: number;
  readonly incoming: boolean;
}

/** Disks of a guest that stand on something else than their image. */
export interface GuestBacking {
  /** By their ids; `directory` is the guest's own. */
  readonly disks: (directory: string) => ReadonlyMap<string, DiskBacking>;
  /** Called last before QEMU is started: nobody else has the directory. */
  readonly open: (directory: string) => Promise<void>;
}

export interface LaunchOptions<T> {
  readonly qemu: string;
  readonly imageDir: string;
  /** The guest's own. */
  readonly directory: string;
  readonly backing: GuestBacking | null;
  /** Nobody knows the guest yet; what is left of an earlier one of its name goes. */
  readonly beforeRecord: (record: GuestRecord) => Promise<void>;
  /** QEMU has started; when this rejects it ends, and the record goes. */
  readonly admit: (record: GuestRecord, process: GuestProcess) => Promise<T>;
}

/** Rejects with a `ProblemError`. */
export async function launchRecorded<T>(
  launch: GuestLaunch,
  { qemu, imageDir, directory, backing, beforeRecord, admit }: LaunchOptions<T>,
): Promise<T> {
  const { definition, accel, uuid, incoming } = launch;
  const stage = incoming ? "incoming" : "owned";
  const record = { ...launch, stage, qemuVersion: "", identity: null } as const;
  let isRecorded = false as boolean;
  let process: GuestProcess | null = null;
  try {
    if (!incoming) await refuseUnfitImages(definition.disks, imageDir);
    process = await launchGuest({
      binary: qemu,
      definition: { ...definition, accel, uuid },
      directory,
      imageDirectory: imageDir,
      incoming,
      ...(backing === null ? {} : { diskBackings: backing.disks(directory) }),
      timeoutMs: LAUNCH_MS_MAX,
      beforeStart: async () => {
        await beforeRecord(record);
        isRecorded = true;
        await writeGuestRecord(directory, record);
        await backing?.open(directory);
      },
    });
    const started = { ...record, ...startedAs(process) };
    await writeGuestRecord(directory, started);
    return await admit(started, process);
  } catch (error) {
    // What nobody could find again must not run.
    await process?.kill();
    if (isRecorded) await removeGuestRecord(directory);
    throw launchProblem(error);
  }
}
