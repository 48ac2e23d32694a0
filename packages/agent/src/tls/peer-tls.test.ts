import { afterEach, beforeEach, describe, expect, test } from "vitest";
import { TlsDirectory } from "@vmferry/testkit";
import { PeerTls } from "./peer-tls.ts";
import { TlsError } from "./tls-error.ts";

let directory: TlsDirectory;

beforeEach(async () => {
  directory = await TlsDirectory.make();
});

afterEach(() => directory.remove());

function problems(use: "server" | "client" = "server"): readonly string[] {
  try {
    new PeerTls(directory.path, use);
  } catch (error) {
    if (error instanceof TlsError) return error.detail.problems;
    throw error;
  }
  return [];
}

describe("the files", () => {
  test.each(["server", "client"] as const)("of a %s that fit together are used", (use) => {
    expect(problems(use)).toEqual([]);
  });

  test.each([
    ["server-key", "client-key", /^server-key\.pem is not the key of server-cert\.pem/],
    ["ca-cert", "other-ca-cert", /^server-cert\.pem is not signed by ca-cert\.pem/],
    ["ca-cert", "server-cert", /^ca-cert\.pem holds a certificate that is no authority's/],
    ["server", "client", /^server-cert\.pem is not meant for a TLS server/],
    ["ca-cert", "intermediate-ca-cert", /^ca-cert\.pem holds an intermediate authority alone: put/],
    ["server", "weak-server", /^OpenSSL does not take server-cert\.pem: .*key too small/],
    ["server-cert", "server-key", /^server-cert\.pem cannot be used: it holds no certificate/],
    ["server-key", "server-cert", /^server-key\.pem cannot be used: /],
  ])("%s that is in truth %s is told by its name", async (name, fixture, expected) => {
    await directory.put(name, fixture);
    expect(problems()[0]).toMatch(expected);
  });

  test("may have been signed by way of an intermediate authority", async () => {
    await directory.put("server", "chained-server");
    expect(problems()).toEqual([]);
    await directory.put("server-cert", "intermediate-ca-cert");
    expect(problems()[0]).toMatch(/^server-key\.pem is not the key/);
  });

  test("that are missing are named, all of them", async () => {
    await directory.removeFile("ca-cert");
    await directory.removeFile("server-key");
    expect(problems()).toMatchObject([
      expect.stringMatching(/^ca-cert\.pem cannot be read: ENOENT/),
      expect.stringMatching(/^server-key\.pem cannot be read: ENOENT/),
    ]);
  });

  test("of the other side are not needed", async () => {
    await directory.removeFile("client-cert");
    await directory.removeFile("client-key");
    expect(problems("server")).toEqual([]);
  });

  test("are read again, and the latest count", async () => {
    const tls = new PeerTls(directory.path, "server");
    const before = tls.options.cert;
    let reloads = 0;
    tls.onReload(() => reloads++);
    await directory.put("server", "renewed-server");
    tls.reload();
    expect(tls.options.cert).not.toBe(before);
    expect(reloads).toBe(1);
  });

  test("of which one is wrong when they are read again change nothing", async () => {
    const tls = new PeerTls(directory.path, "server");
    const before = tls.options;
    tls.onReload(() => expect.unreachable());
    await directory.put("server-cert", "renewed-server-cert");
    expect(() => {
      tls.reload();
    }).toThrow("VMFERRY_TLS_DIR: server-key.pem is not the key of server-cert.pem");
    expect(tls.options).toEqual(before);
  });
});

describe("time", () => {
  const now = new Date("2027-01-01T00:00:00Z");

  test("does not matter while everything is valid", () => {
    const tls = new PeerTls(directory.path, "client");
    expect(tls.readiness(now)).toEqual([]);
    expect(tls.expiries.map(({ certificate }) => certificate)).toEqual(["ca", "client"]);
  });

  test("passes, and the agent is not ready and says what to do, but starts", async () => {
    await directory.put("client", "expired-client");
    const tls = new PeerTls(directory.path, "client");
    expect(tls.readiness(now)).toEqual([
      {
        code: "tls-certificate-invalid",
        detail:
          "client-cert.pem has expired at 2021-01-01T00:00:00.000Z: replace it and send SIGHUP to this agent",
      },
    ]);
  });

  test("has not come yet, which the clock may be to blame for", () => {
    const reason = new PeerTls(directory.path, "client").invalidity(new Date("2019-01-01"));
    expect(reason).toContain(
      "is valid from 2020-01-01T00:00:00.000Z only: check this host's clock",
    );
  });
});
