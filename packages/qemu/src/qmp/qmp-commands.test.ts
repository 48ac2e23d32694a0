import { describe, expect, it } from "vitest";
import { protocolNode, rawNode } from "./block-nodes.ts";
import { checkQmpCommand, readQmpResult } from "./qmp-commands.ts";

function codeOf(act: () => unknown): unknown {
  try {
    act();
  } catch (error) {
    return (error as { code?: unknown }).code;
  }
  return null;
}

const check = (command: string, commandArguments?: unknown): unknown =>
  codeOf(() => {
    checkQmpCommand(command, commandArguments);
  });

describe("checkQmpCommand", () => {
  it.each([
    "human-monitor-command",
    "object-add",
    "device_add",
    "chardev-add",
    "pmemsave",
    "screendump",
    "nbd-server-start",
    "toString",
    "__proto__",
    "",
  ])("does not let %j be sent", (command) => {
    expect(check(command)).toBe("qmp-command-not-allowed");
  });

  it("lets the commands without arguments be sent, without arguments", () => {
    for (const command of ["query-status", "query-migrate", "cont", "stop", "quit"]) {
      expect(check(command)).toBeNull();
      expect(check(command, {})).toBe("qmp-arguments-not-allowed");
    }
  });

  it.each(["migrate", "migrate-incoming", "migrate-recover"])(
    "lets %s name a unix socket and nothing else",
    (command) => {
      expect(check(command, { uri: "unix:/run/m.sock" })).toBeNull();
      const uris = [
        "tcp:127.0.0.1:1",
        "exec:cat",
        "file:/tmp/x",
        "fd:3",
        "unix:relative.sock",
        "unix:",
        "UNIX:/run/m.sock",
        " unix:/run/m.sock",
        "unix:/run/m.sock\n",
        "unix:/run/\0m.sock",
        `unix:/${"x".repeat(107)}`,
        `unix:/${"ü".repeat(60)}`,
        7,
        null,
        ["unix:/run/m.sock"],
      ];
      for (const uri of uris) expect(check(command, { uri })).toBe("qmp-arguments-not-allowed");
      expect(check(command)).toBe("qmp-arguments-not-allowed");
      expect(check(command, {})).toBe("qmp-arguments-not-allowed");
      expect(check(command, { uri: "unix:/run/m.sock", "tls-creds": "x" })).toBe(
        "qmp-arguments-not-allowed",
      );
    },
  );

  it("refuses members that come from a prototype or are called __proto__", () => {
    expect(check("migrate", Object.create({ uri: "unix:/run/m.sock" }))).toBe(
      "qmp-arguments-not-allowed",
    );
    expect(check("migrate", JSON.parse('{"uri":"unix:/run/m.sock","__proto__":{}}'))).toBe(
      "qmp-arguments-not-allowed",
    );
  });

  it("lets only the capabilities and parameters of a migration be set that the agents use", () => {
    const set = (capability: string): unknown =>
      check("migrate-set-capabilities", { capabilities: [{ capability, state: true }] });
    expect(set("return-path")).toBeNull();
    expect(set("background-snapshot")).toBe("qmp-arguments-not-allowed");
    expect(check("migrate-set-capabilities", { capabilities: [] })).toBe(
      "qmp-arguments-not-allowed",
    );
    const parameter = (parameters: unknown): unknown => check("migrate-set-parameters", parameters);
    expect(parameter({ "max-bandwidth": 0, "downtime-limit": 300 })).toBeNull();
    expect(parameter({ "max-bandwidth": -1 })).toBe("qmp-arguments-not-allowed");
    expect(parameter({ "max-bandwidth": NaN })).toBe("qmp-arguments-not-allowed");
    expect(parameter({ "max-bandwidth": "1" })).toBe("qmp-arguments-not-allowed");
    expect(parameter({ "tls-creds": "x" })).toBe("qmp-arguments-not-allowed");
  });

  it("lets block nodes be images and exports on unix sockets only", () => {
    const nbd = protocolNode("disk0", {
      kind: "nbd",
      socketPath: "/run/nbd.sock",
      exportName: "disk0",
      reconnectDelaySeconds: 60,
    });
    const file = protocolNode("disk0", { kind: "file", path: "/images/a,b.raw" });
    expect(check("blockdev-add", nbd)).toBeNull();
    expect(check("blockdev-add", file)).toBeNull();
    expect(check("blockdev-reopen", { options: [rawNode("disk0", "nbd")] })).toBeNull();
    expect(check("blockdev-del", { "node-name": "disk0-nbd" })).toBeNull();
    const refused: unknown[] = [
      { ...nbd, server: { type: "inet", host: "10.0.0.1", port: "1" } },
      { ...file, filename: "relative" },
      { ...file, driver: "https", url: "https://example.org" },
      { ...file, driver: "qcow2" },
      { ...file, locking: "off" },
      null,
    ];
    for (const node of refused)
      expect(check("blockdev-add", node)).toBe("qmp-arguments-not-allowed");
  });

  it("lets a mirror be a whole one into a node that is there, and nothing else", () => {
    const mirror = {
      "job-id": "disk0-mirror",
      device: "disk0",
      target: "disk0-nbd",
      sync: "full",
      "copy-mode": "write-blocking",
    };
    expect(check("blockdev-mirror", mirror)).toBeNull();
    for (const change of [{ sync: "none" }, { "copy-mode": "background" }, { replaces: "disk1" }]) {
      expect(check("blockdev-mirror", { ...mirror, ...change })).toBe("qmp-arguments-not-allowed");
    }
    expect(check("block-job-cancel", { device: "disk0-mirror", force: true })).toBeNull();
    expect(check("block-job-cancel", { device: "disk0-mirror" })).toBe("qmp-arguments-not-allowed");
  });
});

describe("readQmpResult", () => {
  const ram = {
    transferred: 1000,
    remaining: 2000,
    total: 3000,
    duplicate: 4,
    normal: 5,
    "normal-bytes": 6,
    "dirty-pages-rate": 7,
    mbps: 8.5,
    "dirty-sync-count": 9,
    "postcopy-requests": 10,
    "page-size": 4096,
    "multifd-bytes": 0,
    "pages-per-second": 11,
    "precopy-bytes": 12,
    "downtime-bytes": 13,
    "postcopy-bytes": 14,
  };

  it("says none for a QEMU that has never migrated", () => {
    expect(readQmpResult("query-migrate", {})).toMatchObject({ status: "none", ram: null });
  });

  it("reads the progress of a migration", () => {
    const reply = {
      status: "active",
      "total-time": 50,
      "setup-time": 2,
      "expected-downtime": -9223372036854775808,
      ram,
      "blocked-reasons": ["why"],
    };
    expect(readQmpResult("query-migrate", reply)).toEqual({
      status: "active",
      totalMs: 50,
      setupMs: 2,
      downtimeMs: null,
      expectedDowntimeMs: null,
      cpuThrottlePercent: null,
      errorDescription: null,
      blockedReasons: ["why"],
      ram: {
        transferredBytes: 1000,
        remainingBytes: 2000,
        totalBytes: 3000,
        pageSizeBytes: 4096,
        zeroPages: 4,
        normalPages: 5,
        normalBytes: 6,
        passes: 9,
        dirtyPagesPerSecond: 7,
        mbps: 8.5,
        postcopyRequests: 10,
        pagesPerSecond: 11,
        precopyBytes: 12,
        downtimeBytes: 13,
        postcopyBytes: 14,
      },
    });
  });

  it.each([
    ["a status that nobody knows", { status: "teleporting" }],
    ["a status that is no text", { status: 1 }],
    ["a negative count", { status: "active", ram: { ...ram, remaining: -1 } }],
    ["a count with a fraction", { status: "active", ram: { ...ram, remaining: 0.5 } }],
    ["a count beyond 2^53", { status: "active", ram: { ...ram, remaining: 2 ** 53 } }],
    ["a missing count", { status: "active", ram: { ...ram, remaining: undefined } }],
    ["statistics that are a list", { status: "active", ram: [] }],
    ["reasons that are no texts", { "blocked-reasons": [1] }],
    ["no object", "active"],
  ])("refuses a reply to query-migrate with %s", (_, reply) => {
    expect(codeOf(() => readQmpResult("query-migrate", reply))).toBe("qmp-unexpected-shape");
  });

  it("refuses a run state that nobody knows and a flag that is no flag", () => {
    expect(readQmpResult("query-status", { status: "postmigrate", running: false })).toEqual({
      status: "postmigrate",
      running: false,
    });
    for (const reply of [{ status: "x", running: false }, { status: "paused", running: 0 }, []]) {
      expect(codeOf(() => readQmpResult("query-status", reply))).toBe("qmp-unexpected-shape");
    }
  });

  it("does not read members that an object inherits", () => {
    const reply: unknown = Object.create({ status: "running", running: true });
    expect(codeOf(() => readQmpResult("query-status", reply))).toBe("qmp-unexpected-shape");
    const status: unknown = { status: "toString", running: true };
    expect(codeOf(() => readQmpResult("query-status", status))).toBe("qmp-unexpected-shape");
  });
});
