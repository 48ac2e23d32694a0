export { AgentError, codeOf, messageOf, type ErrorDetail } from "./agent-error.ts";
export { assert, InvariantError } from "./assert.ts";
export { Bitmap } from "./bitmap.ts";
export { ByteError, ByteReader } from "./byte-reader.ts";
export { sleep, systemClock, type Clock } from "./clock.ts";
export { Deferred } from "./deferred.ts";
export { RateEwma } from "./ewma.ts";
export { failpoint, FailpointError } from "./failpoint.ts";
export { unreachable } from "./unreachable.ts";
