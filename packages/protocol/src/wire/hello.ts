import type { ControlMessageOf } from "./control-messages.ts";
import { PROTOCOL_VERSION, PROTOCOL_VERSION_MIN } from "./limits.ts";
import { ProtocolError } from "./protocol-error.ts";

/** Optional parts of the protocol that this build has. A feature is used when both sides name it. */
export const FEATURES: readonly string[] = [
  "zstd",
  "trace",
  "page-file",
  "lazy-disk",
  "probe",
  "attached",
  "probe-attached",
  "lacks-all",
];

export interface Agreement {
  readonly version: number;
  readonly features: ReadonlySet<string>;
  /** The peer's incarnation: it changes with every start of that agent. */
  readonly incarnation: string;
}

export function ourHello(identity: {
  readonly software: string;
  readonly incarnation: string;
}): ControlMessageOf<"hello"> {
  return {
    kind: "hello",
    version: PROTOCOL_VERSION,
    versionMin: PROTOCOL_VERSION_MIN,
    features: [...FEATURES],
    ...identity,
  };
}

/**
 * Both sides compute the same agreement from the two hellos: the newest version that both speak,
 * and the features that both name.
 */
export function agree(
  ours: ControlMessageOf<"hello">,
  theirs: ControlMessageOf<"hello">,
): Agreement {
  const version = Math.min(ours.version, theirs.version);
  if (version < Math.max(ours.versionMin, theirs.versionMin)) {
    const [our, their] = [rangeOf(ours), rangeOf(theirs)];
    throw new ProtocolError(
      `no common protocol version: we speak ${our}, the peer (${theirs.software}) speaks ${their}; ` +
        "upgrade the older agent",
      { code: "protocol-version-unsupported", ours: our, theirs: their },
    );
  }
  const features = new Set(ours.features).intersection(new Set(theirs.features));
  return { version, features, incarnation: theirs.incarnation };
}

function rangeOf(hello: ControlMessageOf<"hello">): string {
  return hello.versionMin === hello.version
    ? `${hello.version}`
    : `${hello.versionMin} to ${hello.version}`;
}
