import type { MigrationRole } from "@vmferry/protocol";
import { describe, expect, test } from "vitest";
import { parse } from "yaml";
import type { ConfigOf } from "./agent-config.ts";
import type { Environment } from "./environment.ts";
import { ConfigError, loadConfig, type LoadedConfig } from "./load-config.ts";

interface Given {
  readonly argv?: readonly string[];
  readonly environment?: Environment;
  readonly files?: Readonly<Record<string, string>>;
}

function load<Role extends MigrationRole>(role: Role, given: Given = {}): LoadedConfig<Role> {
  const { argv = [], environment = {}, files = {} } = given;
  const readFile = (path: string): string => {
    const content = files[path];
    if (content === undefined) throw new Error(`ENOENT: no such file, open '${path}'`);
    return content;
  };
  return loadConfig(role, { argv, environment, workingDir: "/srv", readFile, version: "1.2.3" });
}

function run<Role extends MigrationRole>(role: Role, given: Given = {}): ConfigOf<Role> {
  const loaded = load(role, given);
  if (loaded.kind === "print") throw new Error(`printed instead: ${loaded.text}`);
  return loaded.config;
}

function printed(role: MigrationRole, given: Given): string {
  const loaded = load(role, given);
  return loaded.kind === "print" ? loaded.text : "";
}

function problems(role: MigrationRole, given: Given): readonly string[] {
  try {
    load(role, given);
  } catch (error) {
    if (error instanceof ConfigError) return error.detail.problems;
    throw error;
  }
  return [];
}

describe("defaults", () => {
  test("a source agent needs no configuration", () => {
    expect(run("source")).toEqual({
      role: "source",
      apiListen: { host: "127.0.0.1", port: 7070 },
      stateDir: "/srv/.vmferry/source",
      imageDir: "/srv/.vmferry/source/images",
      sharedDir: null,
      tlsDir: null,
      apiToken: null,
      peerToken: null,
      insecure: false,
      qemu: "qemu-system-x86_64",
      logLevel: "info",
      guestMemoryBytesMax: null,
      migrationsKeptMax: 1000,
      migrationsKeptDays: 30,
      peers: [],
    });
  });

  test("a dest agent needs no configuration", () => {
    const config = run("dest");
    expect(config.apiListen).toEqual({ host: "127.0.0.1", port: 7080 });
    expect(config.peerListen).toEqual({ host: "127.0.0.1", port: 7081 });
    expect(config.stateDir).toBe("/srv/.vmferry/dest");
    expect(config).not.toHaveProperty("peers");
  });

  test("images are in the state directory, wherever that is", () => {
    expect(run("dest", { argv: ["--state-dir", "/var/lib/vmferry"] }).imageDir).toBe(
      "/var/lib/vmferry/images",
    );
  });

  test("the result cannot be changed", () => {
    const config = run("source", { environment: { VMFERRY_PEERS: "b=ws://127.0.0.1:1" } });
    expect(Object.isFrozen(config)).toBe(true);
    expect(Object.isFrozen(config.apiListen)).toBe(true);
    expect(Object.isFrozen(config.peers[0])).toBe(true);
  });
});

describe("where values come from", () => {
  const files = { "/etc/v.yaml": "logLevel: error\nqemu: from-file\nstateDir: from-file\n" };
  const environment = {
    VMFERRY_CONFIG: "/etc/v.yaml",
    VMFERRY_LOG_LEVEL: "warn",
    VMFERRY_QEMU: "q",
  };

  test("flags win over the environment, and that over the file", () => {
    const config = run("source", { argv: ["--log-level=debug"], environment, files });
    expect(config.logLevel).toBe("debug");
    expect(config.qemu).toBe("q");
    expect(config.stateDir).toBe("/srv/from-file");
  });

  test("--config wins over VMFERRY_CONFIG", () => {
    const two = { ...files, "/other.yaml": "stateDir: other" };
    const config = run("source", { argv: ["--config", "/other.yaml"], environment, files: two });
    expect(config.stateDir).toBe("/srv/other");
  });

  test("every key of the file is understood", () => {
    const yaml = [
      'apiListen: "[::1]:1"',
      "peers: { b: wss://127.0.0.1:2, c: wss://c.example:3 }",
      "stateDir: /state",
      "imageDir: /images",
      "sharedDir: /shared",
      "tlsDir: /tls",
      "apiToken: api-secret",
      "peerTokenFile: /secrets/peer",
      "insecure: true",
      "qemu: /usr/bin/qemu",
      "logLevel: trace",
      "guestMemoryBytesMax: 68719476736",
      "migrationsKeptMax: 20",
      "migrationsKeptDays: 7",
    ].join("\n");
    const all = { "/v.yaml": yaml, "/secrets/peer": "peer-secret\n" };
    expect(run("source", { argv: ["--config", "/v.yaml"], files: all })).toEqual({
      role: "source",
      apiListen: { host: "::1", port: 1 },
      peers: [
        { name: "b", url: "wss://127.0.0.1:2" },
        { name: "c", url: "wss://c.example:3" },
      ],
      stateDir: "/state",
      imageDir: "/images",
      sharedDir: "/shared",
      tlsDir: "/tls",
      apiToken: "api-secret",
      peerToken: "peer-secret",
      insecure: true,
      qemu: "/usr/bin/qemu",
      logLevel: "trace",
      guestMemoryBytesMax: 68_719_476_736,
      migrationsKeptMax: 20,
      migrationsKeptDays: 7,
    });
  });

  test("every variable is understood", () => {
    const config = run("dest", {
      environment: {
        VMFERRY_API_LISTEN: "127.0.0.1:1",
        VMFERRY_PEER_LISTEN: "127.0.0.1:2",
        VMFERRY_STATE_DIR: "/state",
        VMFERRY_IMAGE_DIR: "/images",
        VMFERRY_SHARED_DIR: "/shared",
        VMFERRY_TLS_DIR: "/tls",
        VMFERRY_API_TOKEN: "api-secret",
        VMFERRY_PEER_TOKEN: "peer-secret",
        VMFERRY_INSECURE: "1",
        VMFERRY_QEMU: "qemu",
        VMFERRY_LOG_LEVEL: "silent",
        VMFERRY_GUEST_MEMORY_BYTES_MAX: "1024",
        VMFERRY_MIGRATIONS_KEPT_MAX: "100000",
        VMFERRY_MIGRATIONS_KEPT_DAYS: "3650",
      },
    });
    expect(config).toEqual({
      role: "dest",
      apiListen: { host: "127.0.0.1", port: 1 },
      peerListen: { host: "127.0.0.1", port: 2 },
      stateDir: "/state",
      imageDir: "/images",
      sharedDir: "/shared",
      tlsDir: "/tls",
      apiToken: "api-secret",
      peerToken: "peer-secret",
      insecure: true,
      qemu: "qemu",
      logLevel: "silent",
      guestMemoryBytesMax: 1024,
      migrationsKeptMax: 100_000,
      migrationsKeptDays: 3650,
    });
  });

  test("an empty variable is none", () => {
    expect(run("source", { environment: { VMFERRY_SHARED_DIR: "", VMFERRY_CONFIG: "" } })).toEqual(
      run("source"),
    );
  });

  test("a variable of the other role is ignored: one environment may start both agents", () => {
    const both = { VMFERRY_PEER_LISTEN: "127.0.0.1:2", VMFERRY_PEERS: "b=ws://127.0.0.1:2" };
    expect(run("source", { environment: both }).peers).toHaveLength(1);
    expect(run("dest", { environment: both }).peerListen.port).toBe(2);
  });
});

describe("what does not exist", () => {
  test.each([
    [
      { argv: ["--api-lisen", "127.0.0.1:1"] },
      "there is no --api-lisen; did you mean --api-listen?",
    ],
    [{ argv: ["--peer-listen=127.0.0.1:1"] }, "there is no --peer-listen"],
    [{ argv: ["-x"] }, "there is no -x"],
    [
      { environment: { VMFERRY_IMAGES_DIR: "/x" } },
      "there is no VMFERRY_IMAGES_DIR; did you mean VMFERRY_IMAGE_DIR?",
    ],
    [
      { argv: ["--config=/v"], files: { "/v": "loglevel: info" } },
      "there is no loglevel in /v; did you mean logLevel?",
    ],
    [{ argv: ["--config=/v"], files: { "/v": "peerListen: x" } }, "there is no peerListen in /v"],
  ] as [Given, string][])("%j is an error that names what was meant", (given, message) => {
    expect(problems("source", given)[0]).toContain(message);
  });

  test("nothing but flags is expected", () => {
    expect(problems("source", { argv: ["start"] })).toEqual([
      "start is not a flag, and nothing else is expected",
    ]);
  });

  test("variables of other programs are none of ours", () => {
    expect(problems("source", { environment: { PATH: "/bin", VMFERR: "1" } })).toEqual([]);
  });
});

describe("values that cannot be", () => {
  test.each([
    [{ argv: ["--api-listen"] }, "--api-listen needs a value"],
    [{ argv: ["--api-listen", "--insecure"] }, "--api-listen needs a value"],
    [{ argv: ["--insecure=1"] }, "--insecure takes no value"],
    [{ argv: ["--qemu=a", "--qemu=b"] }, "--qemu is given twice"],
    [{ argv: ["--api-listen=7070"] }, '--api-listen is "7070" and has to be HOST:PORT'],
    [{ environment: { VMFERRY_INSECURE: "yes" } }, "VMFERRY_INSECURE"],
    [{ environment: { VMFERRY_LOG_LEVEL: "loud" } }, "VMFERRY_LOG_LEVEL"],
    [{ environment: { VMFERRY_GUEST_MEMORY_BYTES_MAX: "8G" } }, "a whole number of bytes"],
    [{ environment: { VMFERRY_GUEST_MEMORY_BYTES_MAX: "0" } }, "a whole number of bytes"],
    [{ argv: ["--migrations-kept-max=0"] }, "a number from 1 to 100000"],
    [{ argv: ["--migrations-kept-max=100001"] }, "a number from 1 to 100000"],
    [{ argv: ["--migrations-kept-days=1.5"] }, "a number from 1 to 3650"],
    [{ environment: { VMFERRY_PEERS: "b=http://h:1" } }, "VMFERRY_PEERS: b has to be ws://"],
    [{ environment: { VMFERRY_CONFIG: "/none" } }, "no such file, open '/none'"],
    [{ argv: ["--config=/v"], files: { "/v": "a: [" } }, "/v: "],
    [{ argv: ["--config=/v"], files: { "/v": "- a" } }, "/v does not hold keys and values"],
    [{ argv: ["--config=/v"], files: { "/v": "qemu: [a]" } }, "qemu in /v has to be one value"],
    [
      { argv: ["--config=/v"], files: { "/v": "peers: {b: 1}" } },
      "peers in /v has to be one value",
    ],
    [{ argv: ["--config=/v"], files: { "/v": "qemu: a\nqemu: b" } }, "/v: Map keys must be unique"],
  ] as [Given, string][])("%j is an error", (given, message) => {
    const found = problems("source", given);
    expect(found).toHaveLength(1);
    expect(found[0]).toContain(message);
  });

  test("everything that is wrong is told at once", () => {
    const given = {
      argv: ["--nonsense"],
      environment: { VMFERRY_LOG_LEVEL: "loud", VMFERRY_X: "1" },
    };
    expect(problems("source", given)).toHaveLength(3);
  });
});

describe("tokens", () => {
  test("a file holds a token and a line break", () => {
    const environment = { VMFERRY_API_TOKEN_FILE: "/t", VMFERRY_PEER_TOKEN_FILE: "/p" };
    const config = run("dest", { environment, files: { "/t": "api\n", "/p": "peer" } });
    expect(config.apiToken).toBe("api");
    expect(config.peerToken).toBe("peer");
  });

  test("the stronger place wins, whether it holds the token or the name of a file", () => {
    const files = { "/v": "apiToken: weak", "/t": "strong" };
    const argv = ["--config=/v", "--api-token-file=/t"];
    expect(run("source", { argv, files }).apiToken).toBe("strong");
    const environment = { VMFERRY_API_TOKEN: "strong" };
    const weaker = { "/v": "apiTokenFile: /none" };
    expect(run("source", { argv: ["--config=/v"], environment, files: weaker }).apiToken).toBe(
      "strong",
    );
  });

  test("a token on the command line is refused, with another way", () => {
    const [problem] = problems("source", { argv: ["--api-token", "hush"] });
    expect(problem).toContain("use --api-token-file or VMFERRY_API_TOKEN");
    expect(problem).not.toContain("hush");
  });

  test.each([
    [{ VMFERRY_API_TOKEN: "a", VMFERRY_API_TOKEN_FILE: "/t" }, "are both given"],
    [{ VMFERRY_API_TOKEN: "hush hush" }, "one word of visible ASCII"],
    [{ VMFERRY_PEER_TOKEN_FILE: "/empty" }, "one word of visible ASCII"],
    [{ VMFERRY_PEER_TOKEN_FILE: "/none" }, "no such file"],
  ] as [Environment, string][])("%j is refused", (environment, message) => {
    const found = problems("source", { environment, files: { "/t": "t", "/empty": "\n" } });
    expect(found).toHaveLength(1);
    expect(found[0]).toContain(message);
    expect(found[0]).not.toContain("hush");
  });
});

describe("what other hosts could reach", () => {
  test.each([
    ["source", { VMFERRY_API_LISTEN: "0.0.0.0:7070" }, ["VMFERRY_API_TOKEN"]],
    [
      "source",
      { VMFERRY_API_LISTEN: "0.0.0.0:7070", VMFERRY_INSECURE: "1" },
      ["VMFERRY_API_TOKEN"],
    ],
    ["dest", { VMFERRY_API_LISTEN: "[::]:7070" }, ["VMFERRY_API_TOKEN"]],
    ["dest", { VMFERRY_PEER_LISTEN: "0.0.0.0:1" }, ["VMFERRY_PEER_TOKEN", "VMFERRY_INSECURE=1"]],
    ["dest", { VMFERRY_PEER_LISTEN: "0.0.0.0:1", VMFERRY_PEER_TOKEN: "t" }, ["VMFERRY_INSECURE=1"]],
    [
      "dest",
      { VMFERRY_PEER_LISTEN: "0.0.0.0:1", VMFERRY_INSECURE: "1", VMFERRY_API_TOKEN: "t" },
      ["VMFERRY_PEER_TOKEN"],
    ],
    ["source", { VMFERRY_PEERS: "b=ws://10.0.0.2:1" }, ["VMFERRY_INSECURE=1"]],
    ["source", { VMFERRY_PEERS: "b=ws://10.0.0.2:1" }, ["VMFERRY_TLS_DIR"]],
    ["source", { VMFERRY_PEERS: "b=wss://10.0.0.2:1" }, ["VMFERRY_TLS_DIR"]],
  ] as [MigrationRole, Environment, string[]][])(
    "a %s agent with %j refuses, and says what to set",
    (role, environment, hints) => {
      const found = problems(role, { environment });
      expect(found).toHaveLength(hints.length);
      hints.forEach((hint, index) => {
        expect(found[index]).toContain(`set ${hint}`);
      });
    },
  );

  test.each([
    ["source", { VMFERRY_API_LISTEN: "0.0.0.0:7070", VMFERRY_API_TOKEN: "t" }],
    ["source", { VMFERRY_PEERS: "b=ws://10.0.0.2:1", VMFERRY_INSECURE: "1" }],
    ["source", { VMFERRY_PEERS: "b=wss://10.0.0.2:1", VMFERRY_TLS_DIR: "tls" }],
    ["dest", { VMFERRY_PEER_LISTEN: "0.0.0.0:1", VMFERRY_TLS_DIR: "tls" }],
    ["source", { VMFERRY_PEERS: "b=ws://127.0.0.1:1" }],
    ["dest", { VMFERRY_PEER_LISTEN: "0.0.0.0:1", VMFERRY_PEER_TOKEN: "t", VMFERRY_INSECURE: "1" }],
  ] as [MigrationRole, Environment][])("a %s agent with %j starts", (role, environment) => {
    expect(problems(role, { environment })).toEqual([]);
  });
});

describe("TLS", () => {
  test.each(["ws://127.0.0.1:1", "ws://10.0.0.2:1"])(
    "a peer at %s is refused, also where plaintext would be allowed",
    (url) => {
      const environment = {
        VMFERRY_PEERS: `b=wss://h:1,c=${url}`,
        VMFERRY_TLS_DIR: "tls",
        VMFERRY_INSECURE: "1",
      };
      expect(problems("source", { environment })).toEqual([
        `c is ${url}, and VMFERRY_TLS_DIR asks for TLS: name it wss:// in VMFERRY_PEERS`,
      ]);
    },
  );

  test("the API beyond loopback needs its token all the same", () => {
    const environment = { VMFERRY_API_LISTEN: "0.0.0.0:1", VMFERRY_TLS_DIR: "tls" };
    expect(problems("dest", { environment })[0]).toContain("set VMFERRY_API_TOKEN");
  });
});

describe("what is printed instead", () => {
  test("--print-config prints what could be a configuration file, without secrets", () => {
    const environment = { VMFERRY_API_TOKEN: "canary-1", VMFERRY_PEERS: "b=ws://127.0.0.1:1" };
    const text = printed("source", { argv: ["--print-config"], environment });
    expect(text).not.toContain("canary");
    const shown = parse(text) as Record<string, unknown>;
    expect(shown["apiToken"]).toBe("[redacted]");
    expect(shown["peerToken"]).toBeNull();
    const { apiToken, ...rest } = shown;
    expect(apiToken).toBeDefined();
    const files = { "/v": JSON.stringify(rest) };
    expect(run("source", { argv: ["--config=/v"], files })).toEqual({
      ...run("source", { environment }),
      apiToken: null,
    });
  });

  test("--print-config does not hide what is wrong", () => {
    expect(problems("source", { argv: ["--print-config", "--log-level=loud"] })).toHaveLength(1);
  });

  test.each(["source", "dest"] as const)("the help of the %s agent names every setting", (role) => {
    const help = printed(role, { argv: ["-h", "--nonsense"] });
    for (const name of [
      "--api-listen HOST:PORT",
      "VMFERRY_API_TOKEN",
      "--api-token-file",
      "7070",
    ]) {
      if (role === "source") expect(help).toContain(name);
    }
    expect(help.includes("VMFERRY_PEER_LISTEN")).toBe(role === "dest");
    expect(help.includes("VMFERRY_PEERS")).toBe(role === "source");
    expect(help).not.toContain("--api-token ");
  });

  test("--version prints the version", () => {
    expect(printed("dest", { argv: ["--version"] })).toBe("1.2.3\n");
  });
});
