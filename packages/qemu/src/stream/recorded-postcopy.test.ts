import { describe, expect, it } from "vitest";

import { encodeBitmapRequest, encodePostcopyResume } from "./command-encoder.ts";
import { PreemptDecoder } from "./preempt-decoder.ts";
import {
  decodeBack,
  decodeForward,
  pageKey,
  PostcopyNotes,
  recordedBack,
  recordedForward,
} from "./recorded-postcopy.ts";
import { ReturnPathDecoder } from "./return-path-decoder.ts";
import { encodeReqPages, encodeReturnPath } from "./return-path-encoder.ts";
import type { ReturnPathMessage } from "./return-path-message.ts";
import { COMMAND } from "./stream-command.ts";
import { StreamDecoder } from "./stream-decoder.ts";
import { refusalOf } from "./stream-recorder.ts";

const CUT = recordedForward("postcopy10");
const RECOVERY = recordedForward("recovery10");
const PREEMPT = recordedForward("preempt10");
const REQUESTED = recordedForward("preempt10-requested");

const first = decodeForward(CUT, { chunkBytes: 65_536 });
const { section } = first.notes;

function withoutDiscards(commands: readonly number[]): number[] {
  return commands.filter((command) => command !== COMMAND.POSTCOPY_RAM_DISCARD);
}

/** As a dest encodes them: a request names its block when it is another than before. */
function encodeAgain(messages: readonly ReturnPathMessage[]): Buffer {
  let block: string | null = null;
  const encoded = messages.map((each) => {
    if (each.type !== "req-pages") return encodeReturnPath(each);
    const { startBytes, lengthBytes } = each;
    const isSame = each.block === block;
    block = each.block;
    return isSame ? encodeReqPages({ startBytes, lengthBytes }) : encodeReturnPath(each);
  });
  return Buffer.concat(encoded);
}

describe("a recorded post-copy that was cut", () => {
  it("has its commands in their order, and ends within its pages", () => {
    const { notes, decoder } = first;
    expect(withoutDiscards(notes.commands)).toEqual([
      COMMAND.OPEN_RETURN_PATH,
      COMMAND.PING,
      COMMAND.POSTCOPY_ADVISE,
      COMMAND.SWITCHOVER_START,
      COMMAND.PING,
      COMMAND.PACKAGED,
      COMMAND.PING,
    ]);
    expect(decoder.phase).toBe("post-copy");
    expect(
      refusalOf(() => {
        decoder.end();
      }),
    ).toEqual({
      code: "stream-truncated",
      phase: "post-copy",
    });
  });

  it("sends pages that it had discarded, each once", () => {
    const { pages, discarded } = first.notes;
    expect(pages.length).toBeGreaterThan(100);
    expect(new Set(pages).size).toBe(pages.length);
    expect(pages.filter((page) => !discarded.has(page))).toEqual([]);
  });

  it("is the same however it is cut into chunks", () => {
    for (const chunkBytes of [1, 4097]) {
      const { notes } = decodeForward(CUT, { chunkBytes });
      expect(notes.pages).toEqual(first.notes.pages);
      expect(notes.commands).toEqual(first.notes.commands);
    }
  });

  it("is answered with requests for discarded pages only", () => {
    const messages = decodeBack(recordedBack("postcopy10"), section.blocks);
    const requests = messages.filter((message) => message.type === "req-pages");
    expect(requests.length).toBeGreaterThan(5);
    for (const { block, startBytes } of requests) {
      expect(first.notes.discarded.has(pageKey(block, startBytes / 4096))).toBe(true);
    }
    expect(messages.map((each) => (each.type === "pong" ? each.value : 0)).slice(0, 4)).toEqual([
      1, 2, 4, 3,
    ]);
  });
});

describe("the recorded recovery of it", () => {
  const { notes, decoder } = decodeForward(RECOVERY, { chunkBytes: 10_007, resumed: section });
  const answers = decodeBack(recordedBack("recovery10"), section.blocks);

  it("asks for the bitmap of every block, goes on, and comes to its end", () => {
    expect(notes.askedBlocks).toEqual(section.blocks.map(({ name }) => name));
    expect(notes.commands.at(-1)).toBe(COMMAND.POSTCOPY_RESUME);
    expect(notes.behindEnd).toBe("00");
    expect(decoder.phase).toBe("complete");
    decoder.end();
  });

  it("begins with what the encoder writes", () => {
    const requests = section.blocks.map(({ name }) => encodeBitmapRequest(name));
    const head = Buffer.concat([...requests, encodePostcopyResume()]);
    expect(RECOVERY.subarray(0, head.length).toString("hex")).toBe(head.toString("hex"));
  });

  it("sends exactly the pages that the bitmaps lack", () => {
    const missing = answers.flatMap((answer) => {
      if (answer.type !== "recv-bitmap") return [];
      const block = section.blocks.find(({ name }) => name === answer.block)!;
      const pages = Array.from({ length: block.lengthBytes / 4096 }, (_, page) => page);
      const lacking = pages.filter((page) => ((answer.bitmap[page >> 3]! >> (page & 7)) & 1) === 0);
      return lacking.map((page) => pageKey(answer.block, page));
    });
    expect([...notes.pages].sort()).toEqual(missing.sort());
    expect(answers.at(-1)).toEqual({ type: "shut", value: 0 });
  });

  it("is refused in every truncation before its first page", () => {
    const headBytes = 200;
    for (let length = 0; length < headBytes; length++) {
      const cut = decodeForward(RECOVERY.subarray(0, length), { chunkBytes: 50, resumed: section });
      expect(
        refusalOf(() => {
          cut.decoder.end();
        }).code,
      ).toBe("stream-truncated");
    }
  });
});

describe("a recorded post-copy with a connection for requested pages", () => {
  const main = decodeForward(PREEMPT, { chunkBytes: 65_536 });
  const requested = new PostcopyNotes(main.notes.section);
  const decoder = new PreemptDecoder(main.notes.section.blocks, requested);
  for (let at = 0; at < REQUESTED.length; at += 10_007) {
    decoder.push(REQUESTED.subarray(at, at + 10_007));
  }

  it("brings every discarded page once, over one of the two", () => {
    decoder.end();
    main.decoder.end();
    expect(main.decoder.phase).toBe("ended");
    const all = [...main.notes.pages, ...requested.pages];
    expect(new Set(all).size).toBe(all.length);
    expect(all.sort()).toEqual([...main.notes.discarded].sort());
  });

  it("brings on the second only what was asked for, in the order of the requests", () => {
    const asked = decodeBack(recordedBack("preempt10"), main.notes.section.blocks).flatMap(
      (each) => (each.type === "req-pages" ? [pageKey(each.block, each.startBytes / 4096)] : []),
    );
    expect(asked).toEqual(expect.arrayContaining(requested.pages));
    const answered = new Set(requested.pages);
    expect(requested.pages).toEqual(asked.filter((page) => answered.has(page)));
  });

  it("may be closed between two records of the second, and only there", () => {
    const recordBytes = 8 + 1 + "pc.ram".length + 4096;
    for (let length = 0; length <= 2 * recordBytes; length++) {
      const cut = new PreemptDecoder(
        main.notes.section.blocks,
        new PostcopyNotes(main.notes.section),
      );
      cut.push(REQUESTED.subarray(0, length));
      const isWhole = length === 0 || length === recordBytes || length === recordBytes + 4104;
      if (isWhole) cut.end();
      else
        expect(
          refusalOf(() => {
            cut.end();
          }).code,
          `${length}`,
        ).toBe("stream-truncated");
    }
  });

  it("is refused on the second with a section, a header, or pages of another block", () => {
    const blocks = main.notes.section.blocks;
    const anotherBlock = Buffer.from(REQUESTED.subarray(0, 4200));
    anotherBlock[9] = 0x71;
    for (const bytes of [PREEMPT.subarray(0, 100), RECOVERY.subarray(0, 100), anotherBlock]) {
      const other = new PreemptDecoder(blocks, new PostcopyNotes(main.notes.section));
      expect(() => {
        other.push(bytes);
      }).toThrow(/not supported|was not announced/);
      expect(() => {
        other.push(REQUESTED);
      }).toThrow(/not supported|was not announced/);
    }
  });

  it("takes EOS for the end of the second, as QEMU 7.2 writes it", () => {
    const other = new PreemptDecoder(
      main.notes.section.blocks,
      new PostcopyNotes(main.notes.section),
    );
    other.push(Buffer.from("0000000000000010", "hex"));
    other.end();
    expect(
      refusalOf(() => {
        other.push(REQUESTED);
      }).code,
    ).toBe("stream-unexpected-record");
  });
});

describe("recorded return paths", () => {
  it.each(["postcopy10", "recovery10", "preempt10"])(
    "of %s encode to the same bytes again",
    (name) => {
      const recorded = recordedBack(name);
      const messages = decodeBack(recorded, section.blocks);
      expect(encodeAgain(messages).equals(recorded)).toBe(true);
    },
  );

  it.each(["postcopy10", "recovery10"])("of %s may be closed between messages only", (name) => {
    const recorded = recordedBack(name);
    const boundaries = new Set([0]);
    let at = 0;
    let block: string | null = null;
    for (const message of decodeBack(recorded, section.blocks)) {
      const isSame = message.type === "req-pages" && message.block === block;
      if (message.type === "req-pages") block = message.block;
      at += isSame ? 16 : encodeReturnPath(message).length;
      boundaries.add(at);
    }
    expect(at).toBe(recorded.length);
    for (let length = 0; length < recorded.length; length++) {
      const limits = { bitmapBytesMax: 2 ** 20, blocks: () => section.blocks };
      const decoder = new ReturnPathDecoder(() => undefined, limits);
      decoder.push(recorded.subarray(0, length));
      if (boundaries.has(length)) decoder.end();
      else
        expect(() => {
          decoder.end();
        }, `${length} bytes`).toThrow(/inside a message/);
    }
  });
});

describe("a stream that takes up a post-copy", () => {
  const request = encodeBitmapRequest("pc.ram");
  const resume = encodePostcopyResume();

  function refused(...pieces: readonly Buffer[]): string {
    const decoder = new StreamDecoder(new PostcopyNotes(section), {}, section);
    return refusalOf(() => {
      decoder.push(Buffer.concat(pieces));
    }).code;
  }

  it("is in recovery until its source says that it goes on", () => {
    const decoder = new StreamDecoder(new PostcopyNotes(section), {}, section);
    expect(decoder.phase).toBe("recovery");
    decoder.push(request);
    expect(decoder.phase).toBe("recovery");
    decoder.push(resume);
    expect(decoder.phase).toBe("post-copy");
  });

  it("asks once for the bitmap of a block that was announced", () => {
    expect(refused(request, request)).toBe("stream-unexpected-record");
    expect(refused(encodeBitmapRequest("pc.rum"))).toBe("stream-unknown-block");
    expect(refused(resume, request)).toBe("stream-unexpected-record");
  });

  it("goes on once, and has no pages before", () => {
    expect(refused(resume, resume)).toBe("stream-unexpected-record");
    expect(refused(Buffer.from("0200000001", "hex"))).toBe("stream-unexpected-record");
  });

  it("has no header, no announcement and no package", () => {
    expect(refused(CUT.subarray(0, 8))).toBe("stream-unknown-record");
    for (const [command, payload] of [
      [COMMAND.OPEN_RETURN_PATH, ""],
      [COMMAND.POSTCOPY_ADVISE, "00000000000010000000000000001000"],
      [COMMAND.POSTCOPY_LISTEN, ""],
      [COMMAND.PACKAGED, "00000100"],
    ] as const) {
      const bytes = Buffer.from(payload, "hex");
      const head = Buffer.of(8, 0, command, 0, bytes.length);
      expect(refused(head, bytes)).toBe("stream-unexpected-record");
    }
  });
});
