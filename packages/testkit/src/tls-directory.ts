import { chmod, copyFile, mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";

const FIXTURES = fileURLToPath(new URL("../fixtures/tls/", import.meta.url));

/** A directory for `VMFERRY_TLS_DIR`: whole and good as it is made, of certificates for loopback. */
export class TlsDirectory {
  readonly path: string;

  private constructor(path: string) {
    this.path = path;
  }

  static async make(): Promise<TlsDirectory> {
    const directory = new TlsDirectory(await mkdtemp(join(tmpdir(), "vmferry-tls-")));
    await directory.put("ca-cert", "ca-cert");
    await directory.put("server", "server");
    await directory.put("client", "client");
    return directory;
  }

  /**
   * Puts one of the fixtures where another file was: a certificate with its key where both are named
   * by the side alone, as in `put("server", "expired-server")`, and otherwise one file.
   */
  async put(name: string, fixture: string): Promise<void> {
    const isPair = name === "server" || name === "client";
    for (const part of isPair ? ["-cert", "-key"] : [""]) {
      const path = join(this.path, `${name}${part}.pem`);
      await copyFile(join(FIXTURES, `${fixture}${part}.pem`), path);
      await chmod(path, 0o600);
    }
  }

  async removeFile(name: string): Promise<void> {
    await rm(join(this.path, `${name}.pem`));
  }

  async remove(): Promise<void> {
    await rm(this.path, { recursive: true });
  }
}
