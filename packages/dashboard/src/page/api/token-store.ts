/** The API's token, for as long as this tab is open. It is never part of an address. */
const KEY = "vmferry-api-token";

export function readToken(): string | null {
  return sessionStorage.getItem(KEY);
}

export function keepToken(token: string): void {
  sessionStorage.setItem(KEY, token);
}

export function forgetToken(): void {
  sessionStorage.removeItem(KEY);
}
