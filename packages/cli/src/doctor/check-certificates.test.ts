import { chmod, copyFile, mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { afterEach, beforeEach, expect, test } from "vitest";
import { checkCertificates } from "./check-certificates.ts";

/** The fixtures: one authority and what it has signed; `chained` by way of another one; `other` a stranger. */
const FIXTURES = fileURLToPath(new URL("./fixtures/", import.meta.url));
const VALID_MS = Date.parse("2027-01-01T00:00:00Z");
const NAMES = ["ca-cert", "server-cert", "server-key", "client-cert", "client-key"];

let directory = "";

beforeEach(async () => {
  directory = await mkdtemp(join(tmpdir(), "vmferry-doctor-"));
  for (const name of NAMES) await put(name, name);
});

afterEach(async () => {
  await rm(directory, { recursive: true });
});

async function put(name: string, fixture: string): Promise<void> {
  const path = join(directory, `${name}.pem`);
  await copyFile(join(FIXTURES, `${fixture}.pem`), path);
  await chmod(path, 0o600);
}

test("certificates and keys that fit together pass", async () => {
  expect(await checkCertificates(directory, VALID_MS)).toMatchObject({ status: "pass" });
});

test("a chain by way of an intermediate authority passes", async () => {
  await put("server-cert", "chained-cert");
  await put("server-key", "chained-key");
  expect(await checkCertificates(directory, VALID_MS)).toMatchObject({ status: "pass" });
});

test("what is not set is not checked", async () => {
  expect(await checkCertificates(undefined)).toMatchObject({ status: "skip" });
});

test.each([
  ["ca-cert", "other-cert", /server-cert\.pem is not signed by ca-cert\.pem\nclient-cert\.pem is/],
  ["ca-cert", "client-cert", /ca-cert\.pem is no certificate authority/],
  ["server-key", "client-key", /^server-key\.pem is not the key of server-cert\.pem$/],
  ["client-cert", "server-cert", /client-cert\.pem is not meant for a client/],
  ["client-cert", "client-key", /client-cert\.pem holds no certificate in PEM$/],
  ["server-key", "server-cert", /server-key\.pem cannot be read: /],
])("%s that is %s fails", async (name, fixture, detail) => {
  await put(name, fixture);
  const finding = await checkCertificates(directory, VALID_MS);
  expect(finding).toMatchObject({
    status: "fail",
    detail: expect.stringMatching(detail) as string,
  });
});

test("a file that is missing is named", async () => {
  await rm(join(directory, "client-key.pem"));
  const finding = await checkCertificates(directory, VALID_MS);
  expect(finding).toMatchObject({ status: "fail" });
  expect(finding.detail).toContain("client-key.pem");
});

test("damaged certificates are told apart from missing ones", async () => {
  const damaged = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
  await writeFile(join(directory, "ca-cert.pem"), damaged);
  const finding = await checkCertificates(directory, VALID_MS);
  expect(finding.detail).toMatch(/ca-cert\.pem cannot be read/);
});

test.each([
  ["2026-01-01T00:00:00Z", "fail", /server-cert\.pem is valid from 2026-11-26T17:05:03\.000Z only/],
  ["2036-11-10T00:00:00Z", "warn", /server-cert\.pem expires at 2036-11-23T17:05:03\.000Z/],
  ["2036-12-01T00:00:00Z", "fail", /server-cert\.pem has expired at 2036-11-23T17:05:03\.000Z/],
])("at %s they %s", async (date, status, detail) => {
  const finding = await checkCertificates(directory, Date.parse(date));
  expect(finding).toMatchObject({ status, detail: expect.stringMatching(detail) as string });
});

test("a key that others can read is worth a warning", async () => {
  await chmod(join(directory, "server-key.pem"), 0o644);
  const finding = await checkCertificates(directory, VALID_MS);
  expect(finding).toMatchObject({
    status: "warn",
    detail: "server-key.pem is open to other users",
  });
});
