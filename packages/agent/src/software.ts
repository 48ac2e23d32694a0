/** Name and version of this build, as peers and `--version` see it. */
export const VERSION = "0.1.0";
export const SOFTWARE = `vmferry/${VERSION}`;
