import { expect, test } from "vitest";
import { formatListenAddress, isLoopback, parseListenAddress } from "./listen-address.ts";

test.each([
  ["127.0.0.1:7070", "127.0.0.1", 7070],
  ["0.0.0.0:0", "0.0.0.0", 0],
  ["[::1]:7070", "::1", 7070],
  ["host-a.example:65535", "host-a.example", 65_535],
])("%s is read and written back", (text, host, port) => {
  const address = parseListenAddress(text);
  expect(address).toEqual({ host, port });
  expect(formatListenAddress(address!)).toBe(text);
});

test("localhost is the one address that clients try first", () => {
  expect(parseListenAddress("localhost:1")).toEqual({ host: "127.0.0.1", port: 1 });
});

test.each([
  "7070",
  ":7070",
  "127.0.0.1",
  "127.0.0.1:",
  "127.0.0.1:65536",
  "127.0.0.1:-1",
  "127.0.0.1:7070 ",
  "::1:7070",
  "[127.0.0.1]:7070",
  "[::1]",
  "a b:1",
  "-a:1",
  "http://a:1",
  "",
])("%j is no address", (text) => {
  expect(parseListenAddress(text)).toBeNull();
});

test.each(["127.0.0.1", "127.255.0.9", "::1", "0:0:0:0:0:0:0:1", "::ffff:127.0.0.1", "localhost"])(
  "%s is this host and no other",
  (host) => {
    expect(isLoopback(host)).toBe(true);
  },
);

test.each(["0.0.0.0", "::", "10.0.0.1", "128.0.0.1", "::2", "::ffff:10.0.0.1", "0x7f.1", "host-a"])(
  "%s may be reached by other hosts, or may be another host",
  (host) => {
    expect(isLoopback(host)).toBe(false);
  },
);
