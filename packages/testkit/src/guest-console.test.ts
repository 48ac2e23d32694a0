import { appendFileSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { systemClock, type Clock } from "@vmferry/core";
import { GuestConsole } from "./guest-console.ts";

const REPORT =
  "VF seq=10 ms=100 pages=4096 writes=20 verified=900 sweeps=1 errors=0 " +
  "diskwrites=0 disktrims=0 diskreads=0 disksweeps=0 diskerrors=0 ioerrors=0 " +
  "diskp50us=0 diskp99us=0";

describe("GuestConsole", () => {
  let directory = "";
  let path = "";
  let nowMs = 0;
  /** Stands still: the console reads only when a test says so. */
  const clock: Clock = {
    nowMs: () => nowMs,
    date: () => new Date(0),
    after: () => () => undefined,
  };
  const opened: GuestConsole[] = [];

  const open = (as: Clock = clock): GuestConsole => {
    const guestConsole = GuestConsole.open(path, { clock: as });
    opened.push(guestConsole);
    return guestConsole;
  };
  /** What the guest writes at a moment, read at that moment. */
  const write = (guestConsole: GuestConsole, text: string, atMs: number): void => {
    appendFileSync(path, text, "latin1");
    nowMs = atMs;
    guestConsole.poll();
  };

  beforeEach(() => {
    directory = mkdtempSync(join(tmpdir(), "vmferry-guest-console-"));
    path = join(directory, "serial.log");
    nowMs = 0;
  });
  afterEach(() => {
    for (const guestConsole of opened.splice(0)) guestConsole.close();
    rmSync(directory, { recursive: true });
  });

  it("waits for a log that is not there yet", () => {
    const guestConsole = open();
    guestConsole.poll();
    expect(guestConsole.lines).toEqual([]);
    write(guestConsole, "#1\n", 7);
    expect(guestConsole.latestSign).toEqual({ sequence: 1, seenAtMs: 7 });
  });

  it("gives a line the time at which its end was seen, and shows one that has only begun", () => {
    const guestConsole = open();
    write(guestConsole, "#1\n#", 10);
    expect(guestConsole.lines).toEqual([
      { text: "#1", seenAtMs: 10, complete: true },
      { text: "#", seenAtMs: 10, complete: false },
    ]);
    write(guestConsole, "2\r\n", 20);
    expect(guestConsole.lines.at(-1)).toEqual({ text: "#2", seenAtMs: 20, complete: true });
  });

  it("sorts ready line, reports, errors and complaints of the kernel", () => {
    const guestConsole = open();
    const error = "VF ERROR memory page=7 cell=0 kind=zero expected=5 found=0 badcells=64";
    const complaint = "[   12.000001] BUG: kernel NULL pointer dereference";
    write(guestConsole, `VF ready ms=900 pages=4096\n${REPORT}\n${error}\n${complaint}\r\n`, 30);
    expect(guestConsole.ready?.get("pages")).toBe("4096");
    expect(guestConsole.latestReport).toMatchObject({ sequence: 10, writes: 20, seenAtMs: 30 });
    expect(guestConsole.reports).toHaveLength(1);
    expect(guestConsole.errors).toEqual([error]);
    expect(guestConsole.kernelComplaints).toEqual([complaint]);
  });

  it("starts again with a log that was started again", () => {
    writeFileSync(path, "#100\n#101\n#102\n");
    const guestConsole = open();
    guestConsole.poll();
    writeFileSync(path, "");
    guestConsole.poll();
    write(guestConsole, "#1\n", 5);
    expect(guestConsole.latestSign?.sequence).toBe(1);
  });

  it("keeps its memory bounded while the guest goes on for ever", () => {
    const guestConsole = open();
    let text = "";
    for (let sequence = 1; sequence <= 50_000; sequence++) text += `#${sequence}\n`;
    write(guestConsole, text, 1);
    expect(guestConsole.lines).toHaveLength(20_000);
    expect(guestConsole.lines.at(-1)?.text).toBe("#50000");
    write(guestConsole, "x".repeat(1_000_000), 2);
    expect(guestConsole.lines.at(-1)?.text.length ?? 0).toBeLessThanOrEqual(65_536);
  });

  it("waits until what was asked for is seen", async () => {
    const guestConsole = open();
    const seen = guestConsole.waitFor((is) => (is.latestSign?.sequence ?? 0) >= 3, {
      timeoutMs: 1000,
    });
    write(guestConsole, "#1\n#2\n", 10);
    write(guestConsole, "#3\n", 20);
    await expect(seen).resolves.toBeUndefined();
    await expect(guestConsole.waitFor(() => true, { timeoutMs: 0 })).resolves.toBeUndefined();
  });

  it("says what the guest said last when the waiting was in vain", async () => {
    const guestConsole = open();
    const seen = guestConsole.waitFor((is) => is.ready !== null, { timeoutMs: 1000 });
    write(guestConsole, "[    4.3] Kernel panic - not syncing\n", 999);
    write(guestConsole, "", 1000);
    await expect(seen).rejects.toMatchObject({
      code: "guest-console-timeout",
      message: expect.stringContaining("Kernel panic") as string,
    });
  });

  it("hands a failure of the predicate to who is waiting", async () => {
    const guestConsole = open();
    let broken = false;
    const seen = guestConsole.waitFor(
      () => {
        if (broken) throw new Error("bad predicate");
        return false;
      },
      { timeoutMs: 1000 },
    );
    broken = true;
    write(guestConsole, "#1\n", 1);
    await expect(seen).rejects.toThrow("bad predicate");
  });

  it("reads the rest when it is closed, and then lets nobody wait", async () => {
    const guestConsole = open();
    const seen = guestConsole.waitFor((is) => is.ready !== null, { timeoutMs: 1000 });
    appendFileSync(path, "#1\n");
    guestConsole.close();
    await expect(seen).rejects.toMatchObject({ code: "guest-console-closed" });
    expect(guestConsole.latestSign?.sequence).toBe(1);
    const late = guestConsole.waitFor(() => false, { timeoutMs: 1000 });
    await expect(late).rejects.toMatchObject({ code: "guest-console-closed" });
  });

  it("follows the log by itself", async () => {
    const guestConsole = open(systemClock);
    const seen = guestConsole.waitFor((is) => is.latestSign?.sequence === 2, { timeoutMs: 10_000 });
    appendFileSync(path, "#1\n#2\n");
    await seen;
    const seenMore = guestConsole.waitFor((is) => is.latestSign?.sequence === 3, {
      timeoutMs: 10_000,
    });
    appendFileSync(path, "#3\n");
    await seenMore;
    expect(guestConsole.lines.map((line) => line.text)).toEqual(["#1", "#2", "#3"]);
  });
});
