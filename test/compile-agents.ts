// Before the first of the real tests.

export { compileAgents as setup } from "@vmferry/testkit";
