import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import type { Locator, Page } from "playwright-core";
import { afterAll, afterEach, beforeAll, describe, expect, it } from "vitest";
import type { MigrationObject } from "@vmferry/protocol";
import { AgentProcess } from "@vmferry/testkit";
import { sampleDisk, sampleMigration } from "../../packages/dashboard/src/sample-migration.ts";
import {
  faintTexts,
  MAY_SKIP_BROWSER,
  namelessControls,
  tabOrder,
  TestBrowser,
  type ColorScheme,
} from "./test-browser.ts";
import { expectArrives, expectKept } from "../expect-guest.ts";
import { LONG_PRE_COPY } from "../held-open.ts";
import { useLab } from "../test-lab.ts";

const MIB = 1024 * 1024;
const PATIENCE_MS = 30_000;
const TITLE = `the dashboard${MAY_SKIP_BROWSER ? " (there is no Chromium)" : ""}`;

/** What a canvas shows, to be compared. */
function pictureOf(canvas: Locator): Promise<string> {
  return canvas.evaluate((element) => (element as HTMLCanvasElement).toDataURL());
}

async function openMigration(page: Page, guest: string): Promise<void> {
  await page.getByRole("link", { name: guest }).click();
  await page.getByRole("heading", { name: `${guest} → dest` }).waitFor();
}

describe.skipIf(MAY_SKIP_BROWSER)(TITLE, () => {
  const test = useLab();
  let browser: TestBrowser;

  beforeAll(async () => {
    browser = await TestBrowser.open();
  });

  afterEach(() => {
    expect(browser.complaints.splice(0)).toEqual([]);
  });

  afterAll(async () => {
    await browser.close();
  });

  it("shows a migration from its beginning to its end: phases, charts, map and events", async () => {
    await test.lab.makeDisk("shown.raw", 256 * MIB, { fill: 0.2 });
    const disks = [{ id: "disk0", image: "shown.raw" }];
    const guest = await test.boot({
      memoryMib: 192,
      workload: { mem: "64M", rate: "1000" },
      disks,
    });
    const page = await browser.page(test.lab.source.api.url);
    await page.getByRole("rowheader", { name: guest.name }).waitFor();
    const limits = { bandwidthBytesPerSecond: 10 * MIB, downtimeMsMax: 50 };
    const id = await guest.migrate({ limits });
    await openMigration(page, guest.name);

    const phases = page.getByRole("region", { name: "Phases" });
    await phases.getByText("disk-copy").waitFor();
    const disk = page.getByRole("img", { name: /^Map of Disk disk0: .*not sent.* sent/ });
    await disk.waitFor();
    const early = await pictureOf(disk);
    await phases.getByText("pre-copy").waitFor({ timeout: PATIENCE_MS });
    expect(await pictureOf(page.getByRole("img", { name: /^Map of Disk/ }))).not.toBe(early);

    const memory = page.getByRole("img", { name: /^Map of Memory: / });
    await memory.waitFor();
    const before = await pictureOf(memory);
    await expect.poll(() => pictureOf(memory), { timeout: PATIENCE_MS }).not.toBe(before);
    const remaining = page.getByRole("img", {
      name: /^Remaining over time. memory: latest .*; disks: latest /,
    });
    await remaining.waitFor();
    const drawn = await pictureOf(remaining.locator("canvas"));
    await expect
      .poll(() => pictureOf(remaining.locator("canvas")), { timeout: PATIENCE_MS })
      .not.toBe(drawn);
    await page.getByRole("img", { name: /^Wire rate over time. sent: latest .* MiB\/s/ }).waitFor();

    await page.getByRole("button", { name: "Change limits" }).click();
    await page.getByLabel("Downtime at most, ms").fill("1000");
    await page.getByLabel("Bandwidth: no limit").check();
    await page.getByRole("button", { name: "Apply limits" }).click();
    await page.getByText("Limits changed.").waitFor();

    const migration = await expectArrives(guest, id);
    await page.getByText("completed", { exact: true }).first().waitFor();
    const events = page.getByRole("region", { name: "Events", exact: true });
    await events.getByText(/^completed: downtime/).waitFor();
    const listed = await phases.getByRole("listitem").locator(".phase").allTextContents();
    expect(listed).toEqual(migration.phases.map(({ phase }) => phase));
    await page.getByRole("button", { name: "Cancel migration" }).waitFor({ state: "hidden" });
    expect([...browser.origins]).toEqual([new URL(test.lab.source.api.url).origin]);
  });

  it("cancels a migration after asking once more, and the guest runs on", async () => {
    const guest = await test.boot();
    const id = await guest.migrate(LONG_PRE_COPY);
    const page = await browser.page(`${test.lab.source.api.url}/#/migrations/${id}`);
    await guest.inPhase(id, "pre-copy");
    const cancel = page.getByRole("button", { name: "Cancel migration" });
    await cancel.click();
    await page.getByRole("button", { name: "Let it go on" }).click();
    await page.getByRole("dialog").waitFor({ state: "detached" });
    expect(await test.lab.source.api.migration(id)).toMatchObject({ phase: "pre-copy" });

    await cancel.click();
    const sinceMs = performance.now();
    const dialog = page.getByRole("dialog", { name: "Cancel this migration?" });
    await dialog.getByRole("button", { name: "Cancel migration" }).click();
    await page.getByText("cancelled: cancelled by request", { exact: true }).waitFor();
    await expectKept(guest, id, { code: "cancelled", during: "pre-copy", sinceMs });
  });

  it("changes nothing at the destination, which does not steer migrations", async () => {
    const guest = await test.boot();
    const id = await guest.migrate(LONG_PRE_COPY);
    await guest.inPhase(id, "pre-copy");
    const page = await browser.page(`${test.lab.dest.api.url}/#/migrations/${id}`);
    await page.getByText("Migrations are steered at the source").waitFor();
    await page.getByText("Not known here: ask the source agent.").waitFor();
    expect(await page.getByRole("button").allTextContents()).toEqual([]);
  });

  it.each<ColorScheme>(["light", "dark"])(
    "can be used by keyboard, by ear and by weak eyes: %s",
    async (scheme) => {
      const guest = await test.boot();
      const id = await guest.migrate(LONG_PRE_COPY);
      const page = await browser.page(test.lab.source.api.url, scheme);
      await page.getByRole("link", { name: guest.name }).first().waitFor();
      expect(await namelessControls(page)).toEqual([]);
      expect(await faintTexts(page)).toEqual([]);

      await page.goto(`${test.lab.source.api.url}/#/migrations/${id}`);
      // Otherwise the keyboard goes on from the heading, to which the page has moved.
      await page.reload();
      await guest.inPhase(id, "pre-copy");
      await page.getByRole("img", { name: /^Map of Memory/ }).waitFor();
      expect(await namelessControls(page)).toEqual([]);
      expect(await faintTexts(page)).toEqual([]);
      const order = [
        "vmferry",
        "Overview",
        "Change limits",
        "Switch to post-copy",
        "Cancel migration",
        "Events, table",
      ];
      expect(await tabOrder(page)).toEqual(order);

      await page.getByRole("button", { name: "Change limits" }).press("Enter");
      expect(await namelessControls(page)).toEqual([]);
      expect(await faintTexts(page)).toEqual([]);
      await page.keyboard.press("Escape");
      await page.getByRole("button", { name: "Cancel migration" }).press("Enter");
      // Who confirms by habit cancels nothing.
      await page.keyboard.press("Enter");
      await page.getByRole("dialog").waitFor({ state: "detached" });
      expect(await test.lab.source.api.migration(id)).toMatchObject({ phase: "pre-copy" });
    },
  );
});

describe.skipIf(MAY_SKIP_BROWSER)(`${TITLE}, of an agent that asks for a token`, () => {
  let browser: TestBrowser;
  let agent: AgentProcess;
  let directory: string;

  beforeAll(async () => {
    browser = await TestBrowser.open();
    directory = await mkdtemp(join(tmpdir(), "vmferry-"));
    agent = await AgentProcess.start({
      role: "source",
      flags: [
        ...["--state-dir", join(directory, "s"), "--image-dir", join(directory, "i")],
        ...["--api-listen", "127.0.0.1:0"],
      ],
      environment: { VMFERRY_API_TOKEN: "a-token" },
    });
  });

  afterAll(async () => {
    await browser.close();
    await agent.stop();
    await rm(directory, { recursive: true, force: true });
  });

  it("is read-only without one, and says so", async () => {
    const page = await browser.page(agent.api.url);
    await page.getByRole("alert").getByText("Read-only: this agent asks for a token").waitFor();
    await page.getByRole("status").getByText("read-only: no token").waitFor();
    expect(await page.getByRole("button").allTextContents()).toEqual(["Use token"]);
    expect(await namelessControls(page)).toEqual([]);
    expect(await faintTexts(page)).toEqual([]);
  });

  it("refuses a wrong one, and keeps the right one in its tab alone", async () => {
    const page = await browser.page(agent.api.url);
    await page.getByLabel("API token").fill("another");
    await page.getByRole("button", { name: "Use token" }).click();
    await page.getByText("The agent refuses this token.").waitFor();
    await page.getByLabel("API token").fill("a-token");
    await page.getByLabel("API token").press("Enter");
    await page.getByText("This agent has no guests.").waitFor();
    await page.reload();
    await page.getByText("This agent has no guests.").waitFor();
    expect(page.url()).toBe(`${agent.api.url}/`);
    expect(await page.evaluate(() => [document.cookie, localStorage.length])).toEqual(["", 0]);

    await page.getByRole("button", { name: "Forget token" }).click();
    await page.getByText("Read-only: this agent asks for a token").waitFor();
    await page.reload();
    await page.getByText("Read-only: this agent asks for a token").waitFor();
    expect(browser.complaints).toEqual([]);
  });

  describe("shows what an agent says", () => {
    /** A page about a migration that the agent does not have: these answers stand for it. */
    const openAs = async (migration: MigrationObject): Promise<Page> => {
      const page = await browser.page("about:blank");
      await page.route("**/v1/migrations/m1", (route) => route.fulfill({ json: migration }));
      await page.route("**/v1/migrations/m1/events", (route) => route.fulfill({ status: 204 }));
      await page.route("**/v1/migrations/m1/map?*", (route) =>
        route.fulfill({ json: { ram: { totalBytes: 4096 * 8, cells: "fmkhdwsz" }, disks: [] } }),
      );
      await page.route("**/v1/migrations/m1/post-copy", (route) =>
        route.request().method() === "GET"
          ? route.fulfill({ status: 405 })
          : route.fulfill({ status: 202, json: migration }),
      );
      await page.goto(`${agent.api.url}/#/migrations/m1`);
      return page;
    };

    it("as text, whatever it is", async () => {
      const hostile = '<img src="x" onerror="document.title = 1"><b>web1</b>';
      const error = { code: "peer-lost", detail: hostile } as const;
      const page = await openAs(
        sampleMigration([["failed", 0]], { guest: hostile, destination: hostile, error }),
      );
      await page.getByRole("heading", { name: `${hostile} → ${hostile}` }).waitFor();
      await page.getByText(`peer-lost: ${hostile}`).waitFor();
      expect(await page.locator("main img, main b").count()).toBe(0);
      expect(browser.complaints).toEqual([]);
    });

    it("of page faults and of every state of the map", async () => {
      const faults = { count: 1234, p50Us: 180, p99Us: 2300 };
      const page = await openAs(
        sampleMigration(
          [
            ["preparing", 0],
            ["post-copy", 100],
          ],
          { faults, mayCancel: false },
        ),
      );
      const region = page.getByRole("region", { name: "Page faults" });
      await region.getByText("1234 pages were waited for.").waitFor();
      expect(await region.locator(".value").allTextContents()).toEqual(["180 µs", "2.3 ms"]);
      const states = ["not sent", "sent", "sent, zero", "dirty", "hot", "held", "missing"];
      const words = [...states, "faulted"].map((state) => `13 % ${state}`).join(" · ");
      await page.getByRole("img", { name: `Map of Memory: ${words}` }).waitFor();
      expect(await page.getByRole("button", { name: "Cancel migration" }).isDisabled()).toBe(true);
    });

    it.each([
      {
        remainingBytes: 4096,
        left: "4.0 KiB",
        ends: "the disks need the source's host until they have come.",
      },
      { remainingBytes: 0, left: "0 B", ends: "the source's host may be lost now." },
    ])("of what still follows the guest: $ends", async ({ remainingBytes, left, ends }) => {
      const { ram } = sampleMigration([]);
      const page = await openAs(
        sampleMigration([["post-copy", 0]], {
          ram: { ...ram, totalBytes: 2 * MIB, remainingBytes: MIB },
          disks: [sampleDisk({ remainingBytes })],
          fallback: "complete",
        }),
      );
      const region = page.getByRole("region", { name: "Still to follow" });
      await region.getByText(ends).waitFor();
      const texts = await region.locator("dd").allTextContents();
      expect(texts).toEqual(["1.0 MiB", left, "complete"]);
      expect(await faintTexts(page)).toEqual([]);
    });

    it("of post-copy, which it switches to after asking, where the agent offers it", async () => {
      const page = await openAs(sampleMigration([["pre-copy", 0]]));
      await page.getByRole("button", { name: "Switch to post-copy" }).click();
      const asked = page.waitForRequest(
        (request) => request.method() === "POST" && request.url().endsWith("/m1/post-copy"),
      );
      const dialog = page.getByRole("dialog", { name: "Switch to post-copy now?" });
      await dialog.getByRole("button", { name: "Switch to post-copy" }).click();
      await asked;
      await page.getByText("Switching to post-copy.").waitFor();
    });
  });
});
