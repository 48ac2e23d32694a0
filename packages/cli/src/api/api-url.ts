import { usageError } from "../cli-error.ts";

/** The base of the API's paths; it ends in a slash, so that a proxy may have put it in a folder. */
export function parseApiUrl(text: string): URL {
  const url = URL.parse(text);
  if (url === null || !["http:", "https:"].includes(url.protocol)) {
    const hint = /^[\w.-]+:\d+$/.test(text) ? `; did you mean http://${text}?` : "";
    throw usageError(
      `--api, or VMFERRY_API: "${text}" is no URL such as http://127.0.0.1:7070${hint}`,
    );
  }
  if (url.username !== "" || url.search !== "" || url.hash !== "") {
    throw usageError(
      "--api, or VMFERRY_API: a URL there has no user, query or fragment; the token is VMFERRY_API_TOKEN",
    );
  }
  if (!url.pathname.endsWith("/")) url.pathname += "/";
  return url;
}
