/** The journals of one agent: a file a guest, in one directory of its state. */
import { mkdir, readdir, stat, utimes } from "node:fs/promises";
import { join } from "node:path";
import { syncDirectory } from "@vmferry/block";
import type { MigrationRole } from "@vmferry/protocol";
import type { JournalIdentity } from "./journal-codec.ts";
import { Journal } from "./journal-file.ts";

const KEPT_DAYS = 30;
const FILE_NAME =
  /^(?<guest>[a-zA-Z0-9][a-zA-Z0-9_.-]*)~(?<uuid>[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12})\.journal$/;

export type GuestIdentityOf<R extends MigrationRole> = Omit<JournalIdentity<R>, "role">;

export class JournalShelf<R extends MigrationRole> {
  readonly #role: R;
  readonly #directory: string;
  readonly #onSynced: (seconds: number) => void;

  private constructor(role: R, directory: string, onSynced: (seconds: number) => void) {
    this.#role = role;
    this.#directory = directory;
    this.#onSynced = onSynced;
  }

  /** `onSynced` is told how long each record took to become durable. */
  static async open<R extends MigrationRole>(
    role: R,
    stateDir: string,
    onSynced: (seconds: number) => void = () => undefined,
  ): Promise<JournalShelf<R>> {
    const directory = join(stateDir, "journals");
    await mkdir(directory, { recursive: true, mode: 0o700 });
    await syncDirectory(stateDir);
    return new JournalShelf(role, directory, onSynced);
  }

  /** The guests that have one. */
  async list(): Promise<GuestIdentityOf<R>[]> {
    const names = (await readdir(this.#directory)).map((name) => FILE_NAME.exec(name)?.groups);
    return names.filter((groups) => groups !== undefined) as unknown as GuestIdentityOf<R>[];
  }

  /** That of the guest, or a new one; rejects as `Journal.open` does. */
  async take({ guest, uuid }: GuestIdentityOf<R>): Promise<Journal<R>> {
    const path = this.#pathOf({ guest, uuid });
    const identity = { role: this.#role, guest, uuid };
    const before = await stat(path).catch(() => null);
    const journal = await Journal.open({ path, identity, onSynced: this.#onSynced });
    // To open one writes its last record again, which makes the journal no younger. A date that
    // cannot be set keeps it for longer.
    if (before !== null && !journal.isNew)
      await utimes(path, before.atime, before.mtime).catch(() => undefined);
    return journal;
  }

  /** Nothing was written to it for so long that nobody asks for what it settles any more. */
  async isOld(identity: GuestIdentityOf<R>, now: Date): Promise<boolean> {
    const writtenAt = await this.writtenAt(identity);
    return now.getTime() - writtenAt.getTime() > KEPT_DAYS * 86_400_000;
  }

  /** When its last record was written. */
  async writtenAt(identity: GuestIdentityOf<R>): Promise<Date> {
    return (await stat(this.#pathOf(identity))).mtime;
  }

  #pathOf({ guest, uuid }: GuestIdentityOf<R>): string {
    return join(this.#directory, `${guest}~${uuid}.journal`);
  }
}
