import { describe, expect, it } from "vitest";
import { parseConsoleLine } from "./console-line.ts";

describe("parseConsoleLine", () => {
  it("reads a report as the guest writes it", () => {
    const text =
      "VF seq=960 ms=11544 pages=16384 writes=19107 verified=2592819 sweeps=157 errors=1 " +
      "diskwrites=1822 disktrims=91 diskreads=3166 disksweeps=33 diskerrors=2 ioerrors=3 " +
      "diskp50us=136 diskp99us=1984";
    expect(parseConsoleLine(text)).toEqual({
      kind: "report",
      counters: {
        sequence: 960,
        guestMs: 11544,
        pages: 16384,
        writes: 19107,
        verified: 2592819,
        sweeps: 157,
        errors: 1,
        diskWrites: 1822,
        diskTrims: 91,
        diskReads: 3166,
        diskSweeps: 33,
        diskErrors: 2,
        ioErrors: 3,
      },
      latency: { diskP50Us: 136, diskP99Us: 1984 },
    });
  });

  it("reads a sign of life and the ready line", () => {
    expect(parseConsoleLine("#1234")).toEqual({ kind: "sign", sequence: 1234 });
    expect(parseConsoleLine("VF ready ms=1650 pages=65536 rate=max hot=90:2")).toEqual({
      kind: "ready",
      parameters: new Map([
        ["ms", "1650"],
        ["pages", "65536"],
        ["rate", "max"],
        ["hot", "90:2"],
      ]),
    });
  });

  it("does not take a piece of a line for a whole one", () => {
    for (const piece of ["#", "12", "#12 ", "VF seq=1 ms=2", "VF ready", "VF", ""]) {
      expect([piece, parseConsoleLine(piece).kind]).toEqual([piece, "other"]);
    }
  });

  it.each([
    "[    4.324697] Kernel panic - not syncing: sysrq triggered crash",
    "[    4.325835] Call Trace:",
    "[   12.000001] BUG: kernel NULL pointer dereference, address: 0000000000000008",
    "[   12.000002] Oops: 0000 [#1] PREEMPT SMP NOPTI",
    "[   12.000003] general protection fault, probably for non-canonical address 0xdead: 0000",
    "[   31.000000] workload[88]: segfault at 0 ip 0000000000401d2e sp 00007ffe error 4",
    "[   52.000000] rcu: INFO: rcu_preempt self-detected stall on CPU",
    "[   52.000000] watchdog: BUG: soft lockup - CPU#0 stuck for 22s! [workload:88]",
    "[  242.000000] INFO: task workload:90 blocked for more than 120 seconds.",
    "[    9.000000] I/O error, dev vda, sector 2048 op 0x1:(WRITE) flags 0x8800",
    "[    9.000000] Out of memory: Killed process 88 (workload)",
    "VF seq=1 m[    9.000000] WARNING: CPU: 0 PID: 88 at kernel/time/timer.c:1",
  ])("takes as a complaint: %s", (text) => {
    expect(parseConsoleLine(text)).toEqual({ kind: "complaint" });
  });

  it.each([
    "[    1.879553] tsc: Refined TSC clocksource calibration: 2596.107 MHz",
    "[   20.572097] random: crng init done",
    "#12[   20.572097] random: crng init done",
    "[    1.401220] ACPI: PM: Preparing to enter system sleep state S5",
  ])("takes as an ordinary message of the kernel: %s", (text) => {
    expect(parseConsoleLine(text)).toEqual({ kind: "kernel" });
  });

  it("takes every error of the workload as one, whatever words are in it", () => {
    expect(parseConsoleLine("VF ERROR io write slot=12 errno=5")).toEqual({ kind: "error" });
    expect(parseConsoleLine("VF ERROR the workload ended with status 139").kind).toBe("error");
  });
});
