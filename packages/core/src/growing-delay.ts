/** For what is tried again until it succeeds: each call gives the next wait, twice the last one. */
export function growingDelay({ msMin, msMax }: DelayRange): () => number {
  let nextMs = msMin;
  return () => {
    const delayMs = nextMs;
    nextMs = Math.min(delayMs * 2, msMax);
    return delayMs;
  };
}

interface DelayRange {
  readonly msMin: number;
  readonly msMax: number;
}
