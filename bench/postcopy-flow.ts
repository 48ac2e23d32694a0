// Experiments with post-copy: how it goes, how it looks on the wire, and what a cut link does.

import { existsSync, readFileSync } from "node:fs";
import { setTimeout as sleep } from "node:timers/promises";
import { PostcopyPair } from "./postcopy-pair.ts";

/** So slow that most pages are still missing when something happens, in bytes a second. */
const SLOW = 256 * 1024;

export const FLOW_EXPERIMENTS: Record<string, (say: (what: string) => void) => Promise<void>> = {
  async plain(say) {
    const pair = await PostcopyPair.open(["postcopy-ram"], say);
    const { source, dest } = pair;
    try {
      await source.qmp.execute("migrate-set-parameters", { "max-postcopy-bandwidth": 4 * 2 ** 20 });
      await pair.begin();
      await pair.tell("before migrate-start-postcopy");
      say(`start: ${await source.attempt("migrate-start-postcopy")}`);
      say(`source: ${await source.until(/postcopy-active/)}`);
      await pair.tell("source is postcopy-active");
      await sleep(1000);
      await pair.tell("a second later, no cont yet");
      say(`requests so far ${pair.relay.requests}`);
      say(`cont: ${await dest.attempt("cont")}`);
      await pair.tell("after cont");
      say(`dest ${await dest.works()}`);
      say(`requests so far ${pair.relay.requests}`);
      say(`source: ${await source.until(/completed/)}`);
      say(`dest: ${await dest.until(/completed/)}`);
      say(`dest ${await dest.works()}, ${pair.relay.requests} requests`);
    } finally {
      await pair.close();
    }
  },

  /** Never `cont`: does everything arrive at a QEMU that stands still? */
  async standing(say) {
    const pair = await PostcopyPair.open(["postcopy-ram"], say);
    const { source, dest } = pair;
    try {
      await pair.begin();
      pair.relay.keepShut = true;
      await source.attempt("migrate-start-postcopy");
      say(`dest: ${await dest.until(/completed/)}`);
      await pair.tell("all pages there, SHUT kept back");
      await sleep(1000);
      await pair.tell("a second later");
      pair.relay.releaseShut();
      say(`source: ${await source.until(/completed/)}`);
      say(`cont: ${await dest.attempt("cont")}`);
      say(`dest ${await dest.works()}`);
    } finally {
      await pair.close();
    }
  },

  async pauseBefore(say) {
    const pair = await PostcopyPair.open(["postcopy-ram", "pause-before-switchover"], say);
    const { source, dest } = pair;
    try {
      await source.qmp.execute("migrate-set-parameters", { "max-postcopy-bandwidth": 4 * 2 ** 20 });
      await pair.begin();
      await source.attempt("migrate-start-postcopy");
      say(`source: ${await source.until(/pre-switchover/)}`);
      const { pages } = pair.relay;
      await sleep(1000);
      await pair.tell(`a second later, ${pair.relay.pages - pages} more pages`);
      say(`continue: ${await source.attempt("migrate-continue", { state: "pre-switchover" })}`);
      say(`source: ${await source.until(/postcopy-active/)}`);
      await sleep(300);
      await pair.tell("after the package");
      say(`cont: ${await dest.attempt("cont")}`);
      say(`source: ${await source.until(/completed/)}`);
      say(`dest ${await dest.works()}`);
    } finally {
      await pair.close();
    }
  },

  /** Both channels: who opens the second one and when, and what it carries. */
  async preempt(say) {
    const pair = await PostcopyPair.open(["postcopy-ram", "postcopy-preempt"], say);
    const { source, dest } = pair;
    try {
      await source.qmp.execute("migrate-set-parameters", { "max-postcopy-bandwidth": 4 * 2 ** 20 });
      await pair.begin();
      await source.attempt("migrate-start-postcopy");
      say(`source: ${await source.until(/postcopy-active/)}`);
      say(`dest: ${await dest.until(/paused . postcopy-active/)}`);
      say(`cont: ${await dest.attempt("cont")}`);
      say(`source: ${await source.until(/completed/)}`);
      say(`dest ${await dest.works()}, ${pair.relay.requests} requests`);
      const second = readFileSync(pair.path("first.1.forward"));
      say(`second channel: ${second.length} bytes, ${second.subarray(0, 24).toString("hex")}`);
      say(`its last: ${second.subarray(-8).toString("hex")}`);
      say(`back on it: ${readFileSync(pair.path("first.1.back")).length} bytes`);
    } finally {
      await pair.close();
    }
  },

  /** Each channel of the two is cut alone; then the other side is recovered. */
  async preemptCut(say) {
    const pair = await PostcopyPair.open(["postcopy-ram", "postcopy-preempt"], say);
    const { source, dest } = pair;
    try {
      await source.qmp.execute("migrate-set-parameters", { "max-postcopy-bandwidth": SLOW });
      await pair.begin();
      await source.attempt("migrate-start-postcopy");
      await dest.until(/paused . postcopy-active/);
      await dest.attempt("cont");
      await sleep(500);
      pair.relay.cut(1);
      await sleep(1000);
      await pair.tell("a second after the second channel was cut");
      pair.relay.cut(0);
      await sleep(1000);
      await pair.tell("a second after both were cut");
      await recover(pair, say);
    } finally {
      await pair.close();
    }
  },

  async recovery(say) {
    for (const when of ["before cont", "after cont"]) {
      say(`--- cut ${when}`);
      const pair = await PostcopyPair.open(["postcopy-ram"], say);
      const { source, dest } = pair;
      try {
        await source.qmp.execute("migrate-set-parameters", { "max-postcopy-bandwidth": SLOW });
        await pair.begin();
        await source.attempt("migrate-start-postcopy");
        await dest.until(/paused . postcopy-active/);
        if (when === "after cont") await dest.attempt("cont");
        await sleep(500);
        pair.relay.cut();
        await sleep(1000);
        await pair.tell("a second after the cut");
        if (when === "before cont") {
          say(`cont: ${await dest.attempt("cont")}`);
          await pair.tell("after cont in postcopy-paused");
        }
        await recover(pair, say);
      } finally {
        await pair.close();
      }
    }
  },

  async killed(say) {
    for (const who of ["dest", "source"] as const) {
      say(`--- ${who} is killed, the dest runs`);
      const pair = await PostcopyPair.open(["postcopy-ram"], say);
      const { source, dest } = pair;
      try {
        await source.qmp.execute("migrate-set-parameters", { "max-postcopy-bandwidth": SLOW });
        await pair.begin();
        await source.attempt("migrate-start-postcopy");
        await dest.until(/paused . postcopy-active/);
        await dest.attempt("cont");
        await sleep(500);
        await pair[who].kill();
        await sleep(1000);
        await pair.tell("a second later");
        if (who === "dest") {
          say(`cont at the source: ${await source.attempt("cont")}`);
          continue;
        }
        say(`dest ${await dest.works()}`);
        say(`stop at the dest: ${await dest.attempt("stop")}`);
        await pair.tell("after stop at the dest");
      } finally {
        await pair.close();
      }
    }
  },

  /** Devices that do not fit: the dest's load of the package fails. */
  async misfit(say) {
    const pair = await PostcopyPair.open(["postcopy-ram"], say);
    const { source } = pair;
    try {
      await pair.dest.kill();
      pair.dest = await pair.start("misfit", true, ["-machine", "hpet=off"]);
      await pair.dest.capabilities("return-path", "events", "late-block-activate", "postcopy-ram");
      await pair.begin();
      await source.attempt("migrate-start-postcopy");
      await source.until(/postcopy-active/);
      await sleep(1000);
      await pair.tell("a second later");
      say(JSON.stringify(await pair.dest.qmp.execute("query-migrate").catch(String)));
    } finally {
      await pair.close();
    }
  },
};

async function recover(pair: PostcopyPair, say: (what: string) => void): Promise<void> {
  const { source, dest } = pair;
  await source.qmp.execute("migrate-set-parameters", { "max-postcopy-bandwidth": 0 });
  say(
    `recover: ${await dest.outOfBand("migrate-recover", { uri: `unix:${pair.path("again.sock")}` })}`,
  );
  pair.relay.close();
  pair.relay = pair.newRelay("resumed", "again.sock", false);
  const uri = `unix:${pair.path("resumed.sock")}`;
  say(`resume: ${await source.attempt("migrate", { uri, resume: true })}`);
  say(`source: ${await source.until(/completed/)}`);
  say(`dest: ${await dest.until(/completed/)}`);
  say(`dest ${await dest.works()}`);
  for (const channel of [0, 1]) {
    const file = pair.path(`resumed.${channel}.forward`);
    if (!existsSync(file)) continue;
    say(`resumed channel ${channel}: ${readFileSync(file).subarray(0, 180).toString("hex")}`);
  }
}
