import { describe, expect, it } from "vitest";
import { loadDashboard } from "./load-dashboard.ts";

const files = await loadDashboard("source");
const textOf = (path: string): string => files.get(path)?.content.toString() ?? "";
const scripts = [...files.keys()].filter((path) => path.endsWith(".ts"));

describe("the page as it is served", () => {
  it("is whole: whatever a module imports or the page refers to is served", () => {
    const references: string[] = [];
    for (const path of scripts) {
      for (const [, target] of textOf(path).matchAll(/^(?:import|export) .*?from "([^"]+)";$/gms)) {
        references.push(new URL(target ?? "", `http://agent${path}`).pathname);
      }
    }
    for (const [, target] of textOf("/").matchAll(/(?:href|src)="([^"#]+)/g)) {
      references.push(target ?? "");
    }
    expect(references.length).toBeGreaterThan(50);
    for (const reference of references) expect([...files.keys()]).toContain(reference);
  });

  it("has no module that nobody imports", () => {
    const seen = new Set<string>(["/dashboard/main.ts"]);
    for (const path of seen) {
      for (const [, target] of textOf(path).matchAll(/ from "([^"]+)";$/gm)) {
        seen.add(new URL(target ?? "", `http://agent${path}`).pathname);
      }
    }
    expect(scripts.filter((path) => !seen.has(path))).toEqual(TYPES_ALONE);
  });

  it("asks nobody else for anything", () => {
    for (const path of [...scripts, "/", "/dashboard/style.css"]) {
      expect(textOf(path)).not.toMatch(/https?:\/\/|@import|url\(/);
    }
  });

  it("has nothing inline, which its policy would refuse", () => {
    expect(textOf("/")).not.toMatch(/<style|\sstyle=|\son[a-z]+=|<script(?![^>]*\ssrc=)/);
  });

  it("never makes markup of text", () => {
    for (const path of scripts) {
      expect(textOf(path)).not.toMatch(/innerHTML|outerHTML|insertAdjacentHTML|document\.write/);
    }
  });

  it("says whose agent it is of", async () => {
    expect(textOf("/")).toContain('data-role="source"');
    const dest = await loadDashboard("dest");
    expect(dest.get("/")?.content.toString()).toContain("<title>vmferry · dest agent</title>");
    expect(dest.get("/")?.etag).not.toBe(files.get("/")?.etag);
  });
});

/** Types leave nothing behind: such a module is empty, and nobody asks for it. */
const TYPES_ALONE = ["/dashboard/views/view.ts"];
