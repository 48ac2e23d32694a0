import { expect, test } from "vitest";
import { parseTraceParent, TRACE_PARENT_PATTERN, traceIdOf } from "./trace-parent.ts";

const TRACE_ID = "4bf92f3577b34da6a3ce929d0e0e4736";
const PARENT_ID = "00f067aa0ba902b7";
const VALID = `00-${TRACE_ID}-${PARENT_ID}-01`;

test("a valid one is passed on as it is, and its trace id is known", () => {
  expect(parseTraceParent(VALID)).toBe(VALID);
  expect(VALID).toMatch(new RegExp(TRACE_PARENT_PATTERN));
  expect(traceIdOf(VALID)).toBe(TRACE_ID);
});

test("one of a later version is read as far as it is known", () => {
  expect(parseTraceParent(`cc-${TRACE_ID}-${PARENT_ID}-01-what-comes-next`)).toBe(VALID);
  expect(parseTraceParent(`cc-${TRACE_ID}-${PARENT_ID}-01`)).toBe(VALID);
});

test.each([
  undefined,
  "",
  `ff-${TRACE_ID}-${PARENT_ID}-01`,
  `${VALID}-more`,
  `cc-${TRACE_ID}-${PARENT_ID}-01.more`,
  VALID.toUpperCase(),
  ` ${VALID}`,
  `${VALID}, ${VALID}`,
  `00-${"0".repeat(32)}-${PARENT_ID}-01`,
  `00-${TRACE_ID}-${"0".repeat(16)}-01`,
  `00-${TRACE_ID.slice(1)}-${PARENT_ID}-01`,
  `00-${TRACE_ID}-${PARENT_ID}`,
])("%j is none", (header) => {
  expect(parseTraceParent(header)).toBeNull();
});

test("no trace has no id", () => {
  expect(traceIdOf(null)).toBeNull();
  expect(traceIdOf(undefined)).toBeNull();
});
