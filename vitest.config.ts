import { defineConfig } from "vitest/config";

// Two projects: `unit` needs nothing but Node; `real` starts QEMU and both agents.
export default defineConfig({
  test: {
    projects: [
      {
        test: {
          name: "unit",
          include: ["packages/*/src/**/*.test.ts", "test/unit/**/*.test.ts"],
          exclude: ["**/*.qemu.test.ts", "**/*.nbd.test.ts", "**/node_modules/**"],
          testTimeout: 20_000,
        },
      },
      {
        test: {
          name: "real",
          include: ["packages/*/src/**/*.{qemu,nbd}.test.ts", "test/**/*.test.ts"],
          exclude: ["test/unit/**", "**/node_modules/**"],
          // Guests share two cores: files run one after another.
          fileParallelism: false,
          testTimeout: 180_000,
          hookTimeout: 180_000,
        },
      },
    ],
  },
});
