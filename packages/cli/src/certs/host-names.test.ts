import { expect, test } from "vitest";
import { parseHost, subjectAltName } from "./host-names.ts";

test("a host is called by its first name, and has all of them", () => {
  const host = parseHost("host-b.lab,10.0.0.2,fd00::2");
  expect(host.name).toBe("host-b.lab");
  expect(subjectAltName(host)).toBe("DNS:host-b.lab,IP:10.0.0.2,IP:fd00::2");
});

test.each([
  ["", "nothing"],
  ["a,", "an empty name"],
  ["..", "a path"],
  ["a/b", "a path"],
  ["a..b", "an empty label"],
  ["-a", "what looks like a flag"],
  ["a\nb", "a line break"],
  ["a;b", "a character of configuration files"],
  ["*.lab", "a wildcard"],
  ["höst", "other letters"],
  ["a".repeat(64), "a label beyond 63 characters"],
  ["a.".repeat(127) + "a", "a name beyond 253 characters"],
])("%j is refused: %s", (text) => {
  expect(() => parseHost(text)).toThrow("is no DNS name and no IP address");
});
