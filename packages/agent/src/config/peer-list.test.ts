import { expect, test } from "vitest";
import { isPlaintextPeer, parsePeerList } from "./peer-list.ts";

test("a list of peers is read in order", () => {
  const { peers, problems } = parsePeerList(
    "host-b=ws://127.0.0.1:7081, c.2=wss://[fd00::2]:443/,",
  );
  expect(problems).toEqual([]);
  expect(peers).toEqual([
    { name: "host-b", url: "ws://127.0.0.1:7081" },
    { name: "c.2", url: "wss://[fd00::2]" },
  ]);
});

test("no peers are no mistake", () => {
  expect(parsePeerList("")).toEqual({ peers: [], problems: [] });
});

test.each([
  ["another scheme", "b=http://h:1"],
  ["a unix socket", "b=ws+unix:///run/x.sock:/"],
  ["a user", "b=ws://user:secret@h:1"],
  ["a user without a password", "b=ws://user@h:1"],
  ["a path", "b=ws://h:1/path"],
  ["a query", "b=ws://h:1?x=1"],
  ["a fragment", "b=ws://h:1#x"],
  ["no port", "b=ws://h"],
  ["a port beyond 65535", "b=ws://h:65536"],
  ["a line break", "b=ws://h\r\n:1"],
  ["a backslash", "b=ws://h\\x:1"],
  ["an encoded host", "b=ws://%31:1"],
  ["a host in other letters", "b=ws://höst:1"],
  ["no name", "ws://h:1"],
  ["a name with a slash", "b/c=ws://h:1"],
  ["no URL", "b"],
])("a peer with %s is refused", (_, text) => {
  const { peers, problems } = parsePeerList(text);
  expect(peers).toEqual([]);
  expect(problems).toHaveLength(1);
});

test("a name is given once", () => {
  const { peers, problems } = parsePeerList("b=ws://h:1,b=ws://i:1");
  expect(peers).toEqual([{ name: "b", url: "ws://h:1" }]);
  expect(problems).toEqual(["the name b is given to two peers"]);
});

test.each([
  ["ws://127.0.0.1:1", false],
  ["ws://0x7f.1:1", false],
  ["ws://[::1]:1", false],
  ["ws://localhost:1", false],
  ["wss://10.0.0.2:1", false],
  ["ws://10.0.0.2:1", true],
  ["ws://localhost.example:1", true],
])("whether %s can be read on the way: %s", (url, expected) => {
  expect(isPlaintextPeer(parsePeerList(`b=${url}`).peers[0]!)).toBe(expected);
});
