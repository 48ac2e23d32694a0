import { mkdtemp, readdir, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, expect, test, vi } from "vitest";
import type { LocalContext } from "../command-context.ts";
import { initCertificates } from "./certs.ts";

const silent = { write: (): boolean => true };
const context = { stdout: silent, stderr: silent, environment: {} } as unknown as LocalContext;

let directory = "";

beforeEach(async () => {
  directory = await mkdtemp(join(tmpdir(), "vmferry-certs-"));
});

afterEach(async () => {
  vi.unstubAllEnvs();
  await rm(directory, { recursive: true });
});

test("a host without openssl is told to install it, and nothing is left behind", async () => {
  vi.stubEnv("PATH", directory);
  await expect(initCertificates(context, directory)).rejects.toMatchObject({
    message: expect.stringContaining("install openssl 3") as string,
    detail: { exitCode: 1 },
  });
  expect(await readdir(directory)).toEqual([]);
});

test("an authority without its key signs nothing", async () => {
  await writeFile(join(directory, "ca-cert.pem"), "");
  await expect(initCertificates(context, directory)).rejects.toThrow(
    "has ca-cert.pem without ca-key.pem: add the other file, or name a new directory",
  );
});

test("a host given twice is wrong usage, before anything is made", async () => {
  const given = initCertificates(context, directory, ["host-a", "host-a,10.0.0.1"]);
  await expect(given).rejects.toMatchObject({ detail: { exitCode: 2 } });
  expect(await readdir(directory)).toEqual([]);
});

test("a directory that cannot be made is told", async () => {
  await writeFile(join(directory, "file"), "");
  await expect(initCertificates(context, join(directory, "file", "lab"))).rejects.toMatchObject({
    message: expect.stringMatching(/^certificates cannot be made in .*: E(NOTDIR|EXIST)/) as string,
  });
});
