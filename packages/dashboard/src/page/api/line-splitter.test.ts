import { expect, it } from "vitest";
import { LineSplitter } from "./line-splitter.ts";

it("gives whole lines, wherever the pieces end", () => {
  const text = 'one\ntwo\n\nthree "ü"\n';
  for (let at = 0; at <= text.length; at++) {
    const splitter = new LineSplitter();
    const lines = [...splitter.push(text.slice(0, at)), ...splitter.push(text.slice(at))];
    expect(lines).toEqual(["one", "two", 'three "ü"']);
  }
});

it("keeps a line that has not ended", () => {
  const splitter = new LineSplitter();
  expect(splitter.push("half")).toEqual([]);
  expect(splitter.push(" and half\n")).toEqual(["half and half"]);
});

it("refuses a line without an end", () => {
  const splitter = new LineSplitter();
  const piece = "x".repeat(1024 * 1024);
  expect(() => {
    for (let i = 0; i < 6; i++) splitter.push(piece);
  }).toThrow("too long");
});
