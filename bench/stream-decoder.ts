/*
 * How fast the migration-stream decoder and the RAM encoder are on one core:
 *   node bench/stream-decoder.ts
 * The stream lies in memory and is pushed in chunks of the sizes that sockets deliver; each page is
 * looked at, not read whole, so the figures are the decoder's own cost.
 */
import { PAGE_BYTES, RamEncoder, StreamDecoder, type StreamHandler } from "@vmferry/qemu";

const BLOCK = { name: "pc.ram", lengthBytes: 4 * 2 ** 30 };
const SECTION = { sectionId: 1, blocks: [BLOCK] };
const PAGE_COUNT = BLOCK.lengthBytes / PAGE_BYTES;
const RUNS = 5;

function u32(value: number): Buffer {
  const bytes = Buffer.alloc(4);
  bytes.writeUInt32BE(value);
  return bytes;
}

function str8(text: string): Buffer {
  return Buffer.concat([Buffer.of(text.length), Buffer.from(text, "latin1")]);
}

/** Header, START of RAM and the header of a PART: what comes before the pages. */
function preamble(): Buffer {
  const length = Buffer.alloc(8);
  length.writeBigUInt64BE(BigInt(BLOCK.lengthBytes));
  const total = Buffer.alloc(8);
  total.writeBigUInt64BE(BigInt(BLOCK.lengthBytes) | 4n);
  const eos = Buffer.from("0000000000000010", "hex");
  const id = u32(SECTION.sectionId);
  return Buffer.concat([
    Buffer.from("QEVM"),
    u32(3),
    Buffer.concat([Buffer.of(0x01), id, str8("ram"), u32(0), u32(4)]),
    Buffer.concat([total, str8(BLOCK.name), length, eos, Buffer.of(0x7e), id]),
    Buffer.concat([Buffer.of(0x02), id]),
  ]);
}

class CountingHandler implements StreamHandler {
  pages = 0;
  zeroPages = 0;
  /** Read from each page, so that the page has to be looked at. */
  checksum = 0;

  page(_block: number, page: number, buffer: Buffer, offset: number): void {
    this.pages++;
    this.checksum = (this.checksum + page + buffer.readUInt8(offset)) | 0;
  }

  zeroPage(_block: number, page: number): void {
    this.zeroPages++;
    this.checksum = (this.checksum + page) | 0;
  }

  verbatim(): void {}
  ramStart(): void {}
  partEnd(): void {}
  ramEnd(): void {}
  deviceState(): void {}
}

function recordsOf(pageCount: number, kind: "page" | "zero"): Buffer {
  const encoder = new RamEncoder(SECTION);
  const recordBytes = kind === "page" ? 8 + PAGE_BYTES : 9;
  const out = Buffer.alloc(encoder.pageHeaderBytesMax + 1 + pageCount * recordBytes);
  let at = encoder.zeroPage(out, 0, 0, 0);
  for (let page = 1; page < pageCount; page++) {
    if (kind === "zero") at = encoder.zeroPage(out, at, 0, page);
    else at = encoder.pageHeader(out, at, 0, page) + PAGE_BYTES;
  }
  return out.subarray(0, at);
}

/** The least time of a few runs, in milliseconds. */
function fastestMs(run: () => void): number {
  let best = Infinity;
  for (let index = 0; index < RUNS; index++) {
    const startMs = performance.now();
    run();
    best = Math.min(best, performance.now() - startMs);
  }
  return best;
}

function measureDecode(stream: Buffer, chunkBytes: number): { ms: number; pages: number } {
  let pages = 0;
  const ms = fastestMs(() => {
    const handler = new CountingHandler();
    const decoder = new StreamDecoder(handler);
    decoder.push(preamble());
    for (let at = 0; at < stream.length; at += chunkBytes) {
      decoder.push(stream.subarray(at, at + chunkBytes));
    }
    pages = handler.pages + handler.zeroPages;
  });
  return { ms, pages };
}

function measureEncode(): number {
  const encoder = new RamEncoder(SECTION);
  const out = Buffer.alloc(64);
  return fastestMs(() => {
    for (let page = 0; page < PAGE_COUNT; page++) encoder.pageHeader(out, 0, 0, page);
  });
}

const data = recordsOf(128 * 1024, "page");
for (const chunkBytes of [64 * 1024, 1024 * 1024]) {
  const { ms, pages } = measureDecode(data, chunkBytes);
  const gibPerSecond = data.length / 2 ** 30 / (ms / 1000);
  console.log(
    `data pages, ${chunkBytes / 1024} KiB chunks: ${gibPerSecond.toFixed(1)} GiB/s,`,
    `${((ms * 1e6) / pages).toFixed(0)} ns a page`,
  );
}
const zeros = recordsOf(PAGE_COUNT, "zero");
for (const chunkBytes of [64 * 1024, 1024 * 1024]) {
  const { ms, pages } = measureDecode(zeros, chunkBytes);
  console.log(
    `zero pages, ${chunkBytes / 1024} KiB chunks: ${((ms * 1e6) / pages).toFixed(1)} ns each,`,
    `${ms.toFixed(1)} ms for 4 GiB of guest`,
  );
}
console.log(`page headers encoded: ${((measureEncode() * 1e6) / PAGE_COUNT).toFixed(1)} ns each`);
