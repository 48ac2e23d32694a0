import { defineConfig } from "vitest/config";

// Two projects: `unit` needs nothing but Node; `real` starts QEMU and both agents. A test named
// `*.model.test.ts` needs nothing either, but takes as long as those of `real`.
export default defineConfig({
  test: {
    reporters: ["default", "./test/report-flaky.ts"],
    projects: [
      {
        test: {
          name: "unit",
          include: ["packages/*/src/**/*.test.ts", "test/unit/**/*.test.ts"],
          exclude: ["**/*.{qemu,nbd,model}.test.ts", "**/node_modules/**"],
          testTimeout: 20_000,
        },
      },
      {
        test: {
          name: "real",
          include: ["packages/*/src/**/*.{qemu,nbd,model}.test.ts", "test/**/*.test.ts"],
          exclude: ["test/unit/**", "**/node_modules/**"],
          // Guests share two cores: files run one after another.
          fileParallelism: false,
          globalSetup: "test/compile-agents.ts",
          // Machines are shared: what fails is tried once more, and what needed that is printed at the
          // end, because it is a defect too, of the test or of what it tests.
          retry: 1,
          testTimeout: 180_000,
          hookTimeout: 180_000,
        },
      },
    ],
  },
});
