import { describe, expect, it } from "vitest";
import { judgeHandOver, type ConsoleLine, type HandOverFindingCode } from "./judge-hand-over.ts";

/** What a guest writes that never moves: `signs` signs of life, a report after every tenth. */
function transcript(signs: number, first = 1): string {
  let text = "";
  for (let sequence = first; sequence < first + signs; sequence++) {
    text += `#${sequence}\n`;
    if (sequence % 10 === 0) text += `${report(sequence, {})}\n`;
  }
  return text;
}

function report(sequence: number, wrong: Readonly<Record<string, number>>): string {
  const counters = {
    seq: sequence,
    ms: sequence * 10,
    pages: 4096,
    writes: sequence * 20,
    verified: sequence * 90,
    sweeps: Math.floor(sequence / 30),
    errors: 0,
    diskwrites: sequence,
    disktrims: sequence,
    diskreads: sequence,
    disksweeps: 0,
    diskerrors: 0,
    ioerrors: 0,
    diskp50us: 100,
    diskp99us: 1000,
    ...wrong,
  };
  return `VF ${Object.entries(counters)
    .map(([key, value]) => `${key}=${value}`)
    .join(" ")}`;
}

/** As GuestConsole would show this log; every line is seen 10 ms after the one before. */
function log(text: string, startMs = 0): ConsoleLine[] {
  const texts = text.split("\n");
  const lines = texts.map((line, i) => ({
    text: line,
    seenAtMs: startMs + i * 10,
    complete: i < texts.length - 1,
  }));
  return lines.filter((line) => line.complete || line.text !== "");
}

function codesOf(source: string, dest: string): HandOverFindingCode[] {
  const verdict = judgeHandOver({ sourceLines: log(source), destLines: log(dest, 5_000) });
  return verdict.findings.map((finding) => finding.code);
}

describe("judgeHandOver", () => {
  it("finds nothing wrong wherever the hand-over cuts the console, also within a line", () => {
    const text = transcript(45, 85);
    // From behind the first sign to before the last: both sides must have something to say.
    for (let cut = 4; cut < text.length - 5; cut++) {
      expect([cut, codesOf(text.slice(0, cut), text.slice(cut))]).toEqual([cut, []]);
    }
  });

  it("tells how long the console was silent, from the last sign at the source", () => {
    const sourceLines = log("#1\n#2\n"); // seen at 0 and 10
    const destLines = log("#3\n#4\n", 250);
    expect(judgeHandOver({ sourceLines, destLines })).toEqual({ findings: [], silenceMs: 240 });
  });

  it("counts a sign that was cut in the middle as one that the dest has said", () => {
    const sourceLines = log("#1\n#2\n#"); // seen at 0, 10 and 20
    const destLines = log("3\n#4\n", 250);
    expect(judgeHandOver({ sourceLines, destLines })).toEqual({ findings: [], silenceMs: 240 });
  });

  it("finds a sign that both sides have said", () => {
    expect(codesOf("#1\n#2\n#3\n", "#3\n#4\n")).toEqual(["sign-repeated"]);
  });

  it("finds a dest that goes on from an older state, once a sign", () => {
    const sourceLines = log(transcript(30));
    const destLines = log("#25\n#26\n#27\n", 5_000);
    const { findings } = judgeHandOver({ sourceLines, destLines });
    expect(findings).toEqual([{ code: "sign-repeated", count: 3, detail: "dest: #25 after #30" }]);
  });

  it("finds a guest that was booted again at the dest", () => {
    expect(codesOf(transcript(30), transcript(12))).toEqual(["sign-repeated", "counter-went-back"]);
  });

  it("finds signs that neither side has said", () => {
    expect(codesOf("#1\n#2\n", "#4\n#5\n")).toEqual(["sign-missing"]);
  });

  it("finds a rest of a line that does not fit to what the source began", () => {
    expect(codesOf("#1\n#2\n#", "x3\n#4\n")).toContain("line-torn");
  });

  it("finds a beginning of a line that has got lost", () => {
    expect(codesOf("#1\n#2\n", "3\n#4\n")).toContain("line-torn");
  });

  it("forgives the line that a kernel message has torn, and no other", () => {
    const torn = "#1\n#2\nVF seq=2 m[   20.572097] random: crng init done\ns=20\n";
    expect(codesOf(torn, "#4\n#5\n")).toEqual([]);
    expect(codesOf(torn, "#4\n#6\n")).toEqual(["sign-missing"]);
  });

  it.each(["writes", "verified", "sweeps", "diskwrites", "disktrims", "diskreads", "ms", "pages"])(
    "finds the counter %s going back from source to dest",
    (key) => {
      const source = `#1\n${report(100, { [key]: 1_000_000 })}\n`;
      expect(codesOf(source, `#2\n${report(101, {})}\n`)).toEqual(["counter-went-back"]);
    },
  );

  it.each(["diskp50us", "diskp99us"])("lets the latency %s go down", (key) => {
    const source = `#1\n${report(100, { [key]: 1_000_000 })}\n`;
    expect(codesOf(source, `#2\n${report(101, {})}\n`)).toEqual([]);
  });

  it.each(["errors", "diskerrors", "ioerrors"])("finds %s in a report", (key) => {
    expect(codesOf("#1\n", `#2\n${report(2, { [key]: 1 })}\n`)).toEqual(["guest-error"]);
  });

  it("finds what the workload itself tells of", () => {
    const error = "VF ERROR memory page=7 cell=0 kind=stale expected=5 found=4 badcells=64\n";
    expect(codesOf("#1\n", `#2\n${error}#3\n`)).toEqual(["guest-error"]);
  });

  it("finds what the kernel complains of", () => {
    const complaint = "[   40.1] BUG: unable to handle page fault for address: ffff888\n";
    expect(codesOf("#1\n", `#2\n${complaint}#3\n`)).toEqual(["kernel-complaint"]);
  });

  it("does without a silence where one side never spoke", () => {
    const silentDest = judgeHandOver({ sourceLines: log("#1\n#2\n#"), destLines: [] });
    expect(silentDest.findings.map((finding) => finding.code)).toEqual(["dest-silent"]);
    expect(silentDest.silenceMs).toBeNull();
    expect(codesOf("", "#1\n")).toEqual(["source-silent"]);
  });

  it("leaves alone what the guest says before the workload begins", () => {
    const boot = "SeaBIOS\n\nVF ready ms=1200 pages=4096 rate=2000\n";
    expect(codesOf(`${boot}#1\n`, "#2\n")).toEqual([]);
  });
});
