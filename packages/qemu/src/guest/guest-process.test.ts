import { spawn, type ChildProcess } from "node:child_process";
import { once } from "node:events";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { QmpClient } from "../qmp/qmp-client.ts";
import { ScriptedQmpPeer } from "../qmp/scripted-qmp-peer.ts";
import { adoptGuest } from "./adopt-guest.ts";
import { watchAdopted, watchChild } from "./exit-watch.ts";
import { guestPathsOfQmpSocket } from "./guest-directory.ts";
import { GuestProcess } from "./guest-process.ts";
import { isSameProcess, parseProcStat, readProcArguments, readProcStat } from "./proc-stat.ts";

let peer: ScriptedQmpPeer;
let child: ChildProcess;
let startTicks: number;

beforeEach(async () => {
  peer = await ScriptedQmpPeer.listen();
  child = spawn("sleep", ["60"]);
  startTicks = readProcStat(child.pid!)!.startTicks;
});

afterEach(async () => {
  if (child.exitCode === null && child.signalCode === null) {
    child.kill("SIGKILL");
    await once(child, "exit");
  }
  await peer.close();
});

async function guestWith(ticks: number, adopted: boolean): Promise<GuestProcess> {
  return new GuestProcess({
    identity: { pid: child.pid!, startTicks: ticks, qmpPath: peer.path },
    qmp: await QmpClient.connect({ path: peer.path, timeoutMs: 5000 }),
    paths: guestPathsOfQmpSocket(peer.path),
    standby: null,
    exitWatch: adopted ? watchAdopted(child.pid!, startTicks) : watchChild(child),
  });
}

describe("GuestProcess", () => {
  it("kills and tells how a child ended", async () => {
    const guest = await guestWith(startTicks, false);
    expect(guest.hasExited).toBe(false);
    expect(await guest.kill()).toEqual({ kind: "observed", code: null, signal: "SIGKILL" });
    expect(guest.hasExited).toBe(true);
    expect(guest.qmp.isOpen).toBe(false);
  });

  it("kills an adopted process without being told how it ended", async () => {
    const guest = await guestWith(startTicks, true);
    expect(await guest.kill()).toEqual({ kind: "unobserved" });
    expect(isSameProcess(child.pid!, startTicks)).toBe(false);
  });

  it("never signals a process that began at another time", async () => {
    const guest = await guestWith(startTicks + 1, false);
    await expect(guest.kill({ timeoutMs: 100 })).rejects.toMatchObject({
      detail: { code: "qemu-did-not-exit", pid: child.pid },
    });
    expect(isSameProcess(child.pid!, startTicks)).toBe(true);
    await guest.detach();
  });

  it("kills a QEMU that does not follow quit in time", async () => {
    const guest = await guestWith(startTicks, false);
    expect(await guest.quit({ timeoutMs: 50 })).toMatchObject({ signal: "SIGKILL" });
    expect(peer.commands.at(-1)?.execute).toBe("quit");
  });

  it("kills at once when there is no QMP left to say quit on", async () => {
    const guest = await guestWith(startTicks, false);
    await guest.qmp.close();
    expect(await guest.quit({ timeoutMs: 60_000 })).toMatchObject({ signal: "SIGKILL" });
  });

  it("leaves the process alone when it is detached", async () => {
    const guest = await guestWith(startTicks, true);
    await guest.detach();
    expect(guest.qmp.isOpen).toBe(false);
    expect(isSameProcess(child.pid!, startTicks)).toBe(true);
  });
});

describe("adoptGuest", () => {
  const adopt = (pid: number, ticks: number): Promise<GuestProcess> =>
    adoptGuest({ pid, startTicks: ticks, qmpPath: peer.path, timeoutMs: 1000 });

  it("refuses a number that another process has by now", async () => {
    await expect(adopt(child.pid!, startTicks + 1)).rejects.toMatchObject({
      code: "guest-not-this-qemu",
    });
  });

  it("does not take a QEMU for gone whose monitor is somebody else's meanwhile", async () => {
    const attached = { pid: child.pid!, startTicks, qmpPath: peer.path, timeoutMs: 1000 };
    const adopted = adoptGuest({ ...attached, attachedDirectory: "/nowhere" });
    await expect(adopted).rejects.toMatchObject({ code: "monitor-not-usable" });
  });

  it("refuses a process that does not serve the socket, though it began at that time", async () => {
    await expect(adopt(child.pid!, startTicks)).rejects.toMatchObject({
      code: "guest-not-this-qemu",
    });
    expect(isSameProcess(child.pid!, startTicks)).toBe(true);
  });

  it("says that a process is gone", async () => {
    child.kill("SIGKILL");
    await once(child, "exit");
    await expect(adopt(child.pid!, startTicks)).rejects.toMatchObject({ code: "guest-gone" });
  });
});

describe("parseProcStat", () => {
  const fields = Array.from({ length: 19 }, (_, index) => 4 + index).join(" ");

  it("reads state and start time, whatever the program is called", () => {
    expect(parseProcStat(`12 (qemu) S ${fields} 23\n`)).toEqual({ state: "S", startTicks: 22 });
    expect(parseProcStat(`12 (a) R 1 (b) Z ${fields} 23\n`)).toMatchObject({ state: "Z" });
    expect(parseProcStat("12 (qemu) S 4 5\n")).toBeNull();
    expect(parseProcStat("")).toBeNull();
  });

  it("takes a process that has ended but was not looked at for gone", async () => {
    // What takes the shell's place does not wait for the shell's child, which ends with its input.
    const script = "exec 3<&0; cat <&3 & echo $!; exec sleep 60";
    const parent = spawn("sh", ["-c", script], { stdio: ["pipe", "pipe", "inherit"] });
    const [output] = (await once(parent.stdout, "data")) as [Buffer];
    const pid = Number(output.toString());
    const program = (): string | undefined => readProcArguments(parent.pid!)[0];
    await expect.poll(program, { timeout: 5000 }).toBe("sleep");
    parent.stdin.end();
    await expect.poll(() => readProcStat(pid)?.state, { timeout: 5000 }).toBe("Z");
    expect(isSameProcess(pid, readProcStat(pid)!.startTicks)).toBe(false);
    parent.kill("SIGKILL");
    await once(parent, "exit");
  });
});
