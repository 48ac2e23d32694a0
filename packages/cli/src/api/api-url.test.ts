import { expect, test } from "vitest";
import { parseApiUrl } from "./api-url.ts";

test.each([
  ["http://127.0.0.1:7070", "http://127.0.0.1:7070/"],
  ["https://agent.example", "https://agent.example/"],
  ["http://[::1]:7070/", "http://[::1]:7070/"],
  ["https://proxy.example/host-a", "https://proxy.example/host-a/"],
])("%s is where the API's paths begin: %s", (text, base) => {
  expect(parseApiUrl(text).href).toBe(base);
});

test.each(["", "agent", "ftp://agent", "127.0.0.1:7070", "//agent"])("%j is no URL", (text) => {
  expect(() => parseApiUrl(text)).toThrow("--api");
});

test("a URL without its scheme is refused with the whole of it", () => {
  expect(() => parseApiUrl("host-a:7070")).toThrow("did you mean http://host-a:7070?");
});

test.each(["http://user@agent", "http://agent/?x=1", "http://agent/#x"])(
  "%s says more than where the API is",
  (text) => {
    expect(() => parseApiUrl(text)).toThrow("no user, query or fragment");
  },
);
