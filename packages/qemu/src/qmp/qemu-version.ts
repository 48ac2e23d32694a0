export interface QemuVersion {
  readonly major: number;
  readonly minor: number;
  readonly micro: number;
}

export function formatQemuVersion(version: QemuVersion): string {
  return `${version.major}.${version.minor}.${version.micro}`;
}
