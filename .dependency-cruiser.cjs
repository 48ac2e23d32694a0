// Who may know whom. `agent` is what both agents are made of; the agents never import each other.
const only = (name, allowed) => ({
  name: `${name}-imports-only-${allowed.join("-") || "nothing"}`,
  severity: "error",
  from: { path: `^packages/${name}/src`, pathNot: "\\.test\\.ts$" },
  to: { path: "^packages/", pathNot: `^packages/(${[name, ...allowed].join("|")})/` },
});

const PURE = "^packages/(core|protocol)/src|/(policy|state)(/|\\.ts$)";
const IO =
  "^(node:)?(fs|fs/promises|net|http|https|tls|dgram|child_process|timers|timers/promises)$";

module.exports = {
  forbidden: [
    { name: "no-cycles", severity: "error", from: {}, to: { circular: true } },
    only("core", []),
    only("protocol", ["core"]),
    only("qemu", ["core"]),
    only("block", ["core"]),
    only("agent", ["core", "protocol", "qemu", "block", "dashboard"]),
    only("source-agent", ["core", "protocol", "qemu", "block", "dashboard", "agent"]),
    only("dest-agent", ["core", "protocol", "qemu", "block", "dashboard", "agent"]),
    only("cli", []),
    only("dashboard", ["protocol"]),
    {
      name: "testkit-is-for-tests",
      severity: "error",
      from: { path: "^packages/", pathNot: "\\.test\\.ts$|^packages/testkit/" },
      to: { path: "^packages/testkit/" },
    },
    {
      name: "packages-are-entered-by-their-index",
      severity: "error",
      from: { path: "^packages/([^/]+)/" },
      to: { path: "^packages/[^/]+/src/", pathNot: "^packages/$1/|/src/index\\.ts$" },
    },
    {
      name: "pure-code-does-no-io",
      severity: "error",
      // A failpoint has to have said what it does before it kills its process.
      from: { path: PURE, pathNot: "\\.test\\.ts$|core/src/failpoint\\.ts$" },
      to: { dependencyTypes: ["core"], path: IO },
    },
  ],
  options: {
    doNotFollow: { path: "node_modules" },
    tsConfig: { fileName: "tsconfig.json" },
    tsPreCompilationDeps: true,
    enhancedResolveOptions: { exportsFields: ["exports"], conditionNames: ["import", "node"] },
  },
};
