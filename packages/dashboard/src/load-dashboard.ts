/**
 * The page as the agents serve it: the sources in `page/`, read once at start-up. Node strips the
 * types of the modules as it does its own; uPlot's files come as they are from its package. Nothing
 * is written anywhere, and there is no build.
 */
import { createHash } from "node:crypto";
import { readdir, readFile } from "node:fs/promises";
import { createRequire, stripTypeScriptTypes } from "node:module";
import { dirname, extname, join, relative, sep } from "node:path";
import { fileURLToPath } from "node:url";

export interface DashboardFile {
  readonly content: Buffer;
  readonly contentType: string;
  /** Of the content, in quotes, as the header has it. */
  readonly etag: string;
}

/** By the path of its URL. */
export type DashboardFiles = ReadonlyMap<string, DashboardFile>;

const PAGE_DIRECTORY = fileURLToPath(new URL("page", import.meta.url));
const PREFIX = "/dashboard/";
const CONTENT_TYPES: Readonly<Record<string, string>> = {
  ".html": "text/html; charset=utf-8",
  ".css": "text/css; charset=utf-8",
  ".svg": "image/svg+xml",
  ".js": "text/javascript; charset=utf-8",
  // The modules keep their names, which are what they import each other by.
  ".ts": "text/javascript; charset=utf-8",
};

/** The page of an agent of this role. */
export async function loadDashboard(role: "source" | "dest"): Promise<DashboardFiles> {
  const files = new Map<string, DashboardFile>();
  const entries = await readdir(PAGE_DIRECTORY, { recursive: true, withFileTypes: true });
  for (const entry of entries) {
    const path = join(entry.parentPath, entry.name);
    if (!entry.isFile() || !isServed(entry.name)) continue;
    const name = relative(PAGE_DIRECTORY, path).split(sep).join("/");
    const text = await readFile(path, "utf8");
    if (name === "index.html") files.set("/", fileOf(name, text.replaceAll("{{role}}", role)));
    else files.set(PREFIX + name, fileOf(name, name.endsWith(".ts") ? scriptOf(text) : text));
  }
  const plotDirectory = dirname(createRequire(import.meta.url).resolve("uplot"));
  for (const name of ["uPlot.esm.js", "uPlot.min.css"]) {
    files.set(PREFIX + name, fileOf(name, await readFile(join(plotDirectory, name), "utf8")));
  }
  return files;
}

function isServed(name: string): boolean {
  return extname(name) in CONTENT_TYPES && !name.endsWith(".test.ts");
}

/** A browser resolves no package names, and the policy allows no import map: it would be inline. */
function scriptOf(source: string): string {
  return stripTypeScriptTypes(source).replace(/ from "uplot";$/m, ` from "${PREFIX}uPlot.esm.js";`);
}

function fileOf(name: string, text: string): DashboardFile {
  const content = Buffer.from(text);
  const hash = createHash("sha256").update(content).digest("base64url").slice(0, 22);
  return { content, contentType: CONTENT_TYPES[extname(name)]!, etag: `"${hash}"` };
}
