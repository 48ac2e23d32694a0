import { readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { expect, test } from "vitest";

const packages = new URL("../../../", import.meta.url).pathname;

test("nothing in the agents but the configuration reads the environment", () => {
  const readers = ["agent", "source-agent", "dest-agent"].flatMap((name) => {
    const root = join(packages, name, "src");
    return readdirSync(root, { recursive: true, encoding: "utf8" })
      .filter((file) => file.endsWith(".ts") && !file.endsWith(".test.ts"))
      .filter((file) => readFileSync(join(root, file), "utf8").includes("process.env"))
      .map((file) => join(name, "src", file));
  });
  expect(readers).toEqual(["agent/src/config/process-config.ts"]);
});
