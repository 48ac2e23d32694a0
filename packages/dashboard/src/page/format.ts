/** How amounts look. A dash is "not known". */

const UNITS = ["B", "KiB", "MiB", "GiB", "TiB", "PiB"];
export const UNKNOWN = "–";

export function formatBytes(bytes: number | null): string {
  if (bytes === null) return UNKNOWN;
  let value = bytes;
  let unit = 0;
  while (value >= 1024 && unit < UNITS.length - 1) {
    value /= 1024;
    unit++;
  }
  return `${digits(value, unit === 0)} ${UNITS[unit] ?? ""}`;
}

export function formatRate(bytesPerSecond: number | null): string {
  return bytesPerSecond === null ? UNKNOWN : `${formatBytes(bytesPerSecond)}/s`;
}

export function formatMs(ms: number | null): string {
  if (ms === null) return UNKNOWN;
  if (ms < 1000) return `${ms < 10 ? digits(ms, false) : Math.round(ms)} ms`;
  if (ms < 60_000) return `${(ms / 1000).toFixed(1)} s`;
  const seconds = Math.round(ms / 1000);
  const [hours, minutes] = [Math.floor(seconds / 3600), Math.floor((seconds % 3600) / 60)];
  const rest = `${pad(minutes)}:${pad(seconds % 60)}`;
  return hours === 0 ? `${rest} min` : `${hours}:${rest} h`;
}

export function formatUs(us: number | null): string {
  if (us === null) return UNKNOWN;
  return us < 1000 ? `${Math.round(us)} µs` : formatMs(us / 1000);
}

/** The time of day where the reader is. */
export function formatTime(at: string): string {
  const date = new Date(at);
  if (Number.isNaN(date.getTime())) return UNKNOWN;
  const time = [date.getHours(), date.getMinutes(), date.getSeconds()].map(pad).join(":");
  return `${time}.${String(date.getMilliseconds()).padStart(3, "0")}`;
}

export function formatDate(at: string): string {
  const date = new Date(at);
  if (Number.isNaN(date.getTime())) return UNKNOWN;
  const day = [date.getFullYear(), pad(date.getMonth() + 1), pad(date.getDate())].join("-");
  return `${day} ${[date.getHours(), date.getMinutes(), date.getSeconds()].map(pad).join(":")}`;
}

export function formatShare(share: number): string {
  const percent = share * 100;
  return percent > 0 && percent < 1 ? "<1 %" : `${Math.round(percent)} %`;
}

function digits(value: number, whole: boolean): string {
  return whole || value >= 100 ? String(Math.round(value)) : value.toFixed(1);
}

function pad(value: number): string {
  return String(value).padStart(2, "0");
}
