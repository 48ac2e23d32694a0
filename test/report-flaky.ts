import type { Reporter, TestModule } from "vitest/node";

/** Names at the end of a run what passed at the second attempt only: a defect that is yet to be found. */
export default class ReportFlaky implements Reporter {
  onTestRunEnd(modules: readonly TestModule[]): void {
    const tests = modules.flatMap(({ children }) => [...children.allTests()]);
    const flaky = tests.filter((test) => test.diagnostic()?.flaky === true);
    if (flaky.length === 0) return;
    console.log(`\n${flaky.length} passed at the second attempt only:`);
    for (const test of flaky) {
      console.log(`  ${test.module.relativeModuleId} > ${test.fullName}`);
      for (const { message } of test.result().errors ?? []) console.log(`    ${message}`);
    }
  }
}
