// A real browser for tests of the dashboard, and what can be asked of any page in it.

import { existsSync } from "node:fs";
import { chromium, type Browser, type Page } from "playwright-core";

/** Debian's; playwright-core brings none. */
const CHROMIUM = process.env["VMFERRY_CHROMIUM"] ?? "/usr/bin/chromium";

export const MAY_SKIP_BROWSER = !existsSync(CHROMIUM) && process.env["CI"] === undefined;

export type ColorScheme = "light" | "dark";

export class TestBrowser {
  /** What went wrong in the pages, refusals by their content security policy included. */
  readonly complaints: string[] = [];
  /** Origins that were asked for anything. */
  readonly origins = new Set<string>();
  readonly #browser: Browser;

  private constructor(browser: Browser) {
    this.#browser = browser;
  }

  static async open(): Promise<TestBrowser> {
    // Its sandbox does not work for root; the pages are our own.
    const args = process.getuid?.() === 0 ? ["--no-sandbox"] : [];
    return new TestBrowser(await chromium.launch({ executablePath: CHROMIUM, args }));
  }

  async page(url: string, colorScheme: ColorScheme = "light"): Promise<Page> {
    const viewport = { width: 1280, height: 900 };
    const context = await this.#browser.newContext({ colorScheme, viewport });
    const page = await context.newPage();
    page.on("pageerror", (error) => this.complaints.push(String(error)));
    page.on("console", (message) => {
      // An answer that is not 2xx: whether it should be one is another question.
      const isStatus = message.text().startsWith("Failed to load resource: the server responded");
      if (message.type() === "error" && !isStatus) this.complaints.push(message.text());
    });
    page.on("request", (request) => this.origins.add(new URL(request.url()).origin));
    await page.goto(url);
    return page;
  }

  async close(): Promise<void> {
    await this.#browser.close();
  }
}

/** What can have the focus and has no name, by the browser's own tree for screen readers. */
export async function namelessControls(page: Page): Promise<string[]> {
  const session = await page.context().newCDPSession(page);
  const { nodes } = await session.send("Accessibility.getFullAXTree");
  await session.detach();
  return nodes
    .filter(({ ignored, properties }) => {
      const isFocusable = properties?.some(
        ({ name, value }) => name === "focusable" && value.value === true,
      );
      return !ignored && isFocusable === true;
    })
    .filter(({ name }) => ((name?.value as string | undefined) ?? "") === "")
    .map(({ role }) => String(role?.value));
}

/** Names of what the Tab key comes to, from the top of the page until it is round. */
export async function tabOrder(page: Page): Promise<string[]> {
  const names: string[] = [];
  await page.evaluate(() => {
    (document.activeElement as HTMLElement | null)?.blur();
  });
  for (let i = 0; i < 50; i++) {
    await page.keyboard.press("Tab");
    const name = await page.evaluate(() => {
      const { activeElement } = document;
      if (activeElement === null || activeElement === document.body) return null;
      return activeElement.getAttribute("aria-label") ?? activeElement.textContent;
    });
    if (name === null || name === names[0]) break;
    names.push(name);
  }
  return names;
}

/** Texts that are hard to read: less than 4.5 to 1 against what they stand on (WCAG 2, AA). */
export function faintTexts(page: Page): Promise<string[]> {
  return page.evaluate(() => {
    const parse = (color: string): number[] => (color.match(/[\d.]+/g) ?? []).map(Number);
    const luminance = (color: string): number => {
      const [r = 0, g = 0, b = 0] = parse(color).map((value) => {
        const part = value / 255;
        return part <= 0.04045 ? part / 12.92 : ((part + 0.055) / 1.055) ** 2.4;
      });
      return 0.2126 * r + 0.7152 * g + 0.0722 * b;
    };
    const backgroundOf = (element: Element | null): string => {
      for (let at = element; at !== null; at = at.parentElement) {
        const { backgroundColor } = getComputedStyle(at);
        if ((parse(backgroundColor)[3] ?? 1) === 1) return backgroundColor;
      }
      return "rgb(255, 255, 255)";
    };
    const faint: string[] = [];
    for (const element of document.querySelectorAll("body *:not(script, noscript, :disabled)")) {
      const hasText = [...element.childNodes].some(
        (node) => node.nodeType === Node.TEXT_NODE && (node.textContent ?? "").trim() !== "",
      );
      if (!hasText || element.getClientRects().length === 0) continue;
      const text = luminance(getComputedStyle(element).color);
      const back = luminance(backgroundOf(element));
      const ratio = (Math.max(text, back) + 0.05) / (Math.min(text, back) + 0.05);
      if (ratio < 4.5) faint.push(`${element.textContent} (${ratio.toFixed(1)})`);
    }
    return faint;
  });
}
