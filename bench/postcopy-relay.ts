// Between two QEMUs that migrate by post-copy: hands on every byte as it is and writes down what
// passes. It can stop reading what the source sends, keep SHUT back, and cut the link.

import { appendFileSync, rmSync, writeFileSync } from "node:fs";
import { createConnection, createServer, type Server, type Socket } from "node:net";
import {
  COMMAND,
  encodeReturnPath,
  ReturnPathDecoder,
  StreamDecoder,
  type RamSection,
  type ReturnPathMessage,
} from "@vmferry/qemu";

export interface RelayOptions {
  /** Where the source is told to migrate to, and where the dest listens. */
  readonly sourcePath: string;
  readonly destPath: string;
  /** Directory for what every channel said, `<prefix>.<n>.forward` and `.back`. */
  readonly recordPrefix: string;
  readonly say: (what: string) => void;
  /** Channels are understood as a new migration's; false: only bytes are counted. */
  readonly decode?: boolean;
}

const COMMAND_NAMES = new Map<number, string>(
  Object.entries(COMMAND).map(([name, code]) => [code, name]),
);

interface Channel {
  readonly source: Socket;
  readonly dest: Socket;
}

export class PostcopyRelay {
  pages = 0;
  pagesBehindPackage = 0;
  packaged = false;
  /** Called when the package's header was read, before any of it is handed on. */
  onPackage: () => void = () => undefined;
  keepShut = false;
  requests = 0;
  /** All but pages that was sent to the dest before END: header, block list, commands, package. */
  readonly verbatim: Buffer[] = [];
  readonly #options: RelayOptions;
  readonly #server: Server;
  readonly #channels: Channel[] = [];
  #section: RamSection | null = null;
  #keptShut: ReturnPathMessage | null = null;

  constructor(options: RelayOptions) {
    this.#options = options;
    rmSync(options.sourcePath, { force: true });
    this.#server = createServer((source) => {
      this.#join(source, createConnection(options.destPath));
    });
    this.#server.listen(options.sourcePath);
  }

  get blocks(): RamSection["blocks"] {
    return this.#section?.blocks ?? [];
  }

  pause(): void {
    for (const { source } of this.#channels) source.pause();
  }

  resume(): void {
    for (const { source } of this.#channels) source.resume();
  }

  releaseShut(): void {
    this.keepShut = false;
    if (this.#keptShut !== null) this.#channels[0]?.source.write(encodeReturnPath(this.#keptShut));
  }

  cut(which: "all" | number = "all"): void {
    const cut = which === "all" ? this.#channels : this.#channels.slice(which, which + 1);
    for (const { source, dest } of cut) {
      source.destroy();
      dest.destroy();
    }
  }

  close(): void {
    this.cut();
    this.#server.close();
  }

  #join(source: Socket, dest: Socket): void {
    const index = this.#channels.length;
    const { say } = this.#options;
    say(`relay: channel ${index} opened by the source`);
    this.#channels.push({ source, dest });
    const file = (end: string): string => `${this.#options.recordPrefix}.${index}.${end}`;
    for (const end of ["forward", "back"]) writeFileSync(file(end), "");
    const forward = index === 0 && this.#options.decode !== false ? this.#forwardDecoder() : null;
    const back = index === 0 ? this.#backDecoder(source) : null;
    source.on("data", (chunk: Buffer) => {
      appendFileSync(file("forward"), chunk);
      if (forward !== null)
        this.#attempt(() => {
          forward.push(chunk);
        });
      if (!dest.write(chunk)) {
        source.pause();
        dest.once("drain", () => source.resume());
      }
    });
    dest.on("data", (chunk: Buffer) => {
      appendFileSync(file("back"), chunk);
      if (back === null) source.write(chunk);
      else
        this.#attempt(() => {
          back.push(chunk);
        });
    });
    for (const [name, socket, other] of [
      ["source", source, dest],
      ["dest", dest, source],
    ] as const) {
      socket.on("error", () => undefined);
      socket.on("close", () => {
        say(`relay: channel ${index} closed by ${name}`);
        other.end();
      });
    }
  }

  #attempt(step: () => void): void {
    try {
      step();
    } catch (error) {
      this.#options.say(`relay: not understood: ${String(error)}`);
    }
  }

  #forwardDecoder(): StreamDecoder {
    const { say } = this.#options;
    const count = (): void => {
      this.pages++;
      if (this.packaged) this.pagesBehindPackage++;
    };
    return new StreamDecoder({
      page: count,
      zeroPage: count,
      verbatim: (bytes) => {
        this.verbatim.push(Buffer.from(bytes));
      },
      command: (command, payload) => {
        const hex = Buffer.from(payload.subarray(0, 40)).toString("hex");
        say(`→ ${COMMAND_NAMES.get(command) ?? command} ${payload.length} ${hex}`);
        if (command === COMMAND.PACKAGED) this.onPackage();
      },
      packageEnd: () => {
        this.packaged = true;
        say(`→ end of the package, after ${this.pages} pages`);
      },
      ramStart: (section) => {
        this.#section = section;
        const blocks = section.blocks.map(({ name, lengthBytes }) => `${name} ${lengthBytes}`);
        say(`→ START ram id ${section.sectionId}: ${blocks.join(", ")}`);
      },
      partEnd: () => undefined,
      ramEnd: () => {
        say(`→ END of ram, ${this.pagesBehindPackage} pages behind the package`);
      },
      deviceState: (bytes) => {
        say(
          `→ behind END: ${Buffer.from(bytes.subarray(0, 16)).toString("hex")} (${bytes.length})`,
        );
      },
    });
  }

  #backDecoder(source: Socket): ReturnPathDecoder {
    return new ReturnPathDecoder(
      (message) => {
        if (message.type === "req-pages") this.requests++;
        if (message.type !== "req-pages" || this.requests < 4) {
          const what =
            message.type === "recv-bitmap"
              ? { ...message, bitmap: message.bitmap.length }
              : message;
          this.#options.say(`← ${JSON.stringify(what)}`);
        }
        if (message.type === "shut" && this.keepShut) this.#keptShut = message;
        else source.write(encodeReturnPath(message));
      },
      { bitmapBytesMax: 2 ** 24 },
    );
  }
}
