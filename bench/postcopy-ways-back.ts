// Experiments with post-copy: until when the guest can be brought back, and what is lost if not.

import { setTimeout as sleep } from "node:timers/promises";
import { PostcopyPair } from "./postcopy-pair.ts";
import { PostcopyRescue } from "./postcopy-rescue.ts";

/** So slow that most pages are still missing when something happens, in bytes a second. */
const SLOW = 256 * 1024;

export const WAY_BACK_EXPERIMENTS: Record<string, (say: (what: string) => void) => Promise<void>> =
  {
    /** Cancelled at the freeze point, and cut there. */
    async backFromPause(say) {
      for (const how of ["cancel", "cut", "cut and continue"]) {
        const pair = await PostcopyPair.open(["postcopy-ram", "pause-before-switchover"], say);
        const { source } = pair;
        try {
          await pair.begin();
          await source.attempt("migrate-start-postcopy");
          say(`source: ${await source.until(/pre-switchover/)}`);
          if (how === "cancel") say(`cancel: ${await source.attempt("migrate_cancel")}`);
          else pair.relay.cut();
          if (how === "cut and continue") {
            say(
              `continue: ${await source.attempt("migrate-continue", { state: "pre-switchover" })}`,
            );
          }
          await sleep(1000);
          await pair.tell(`a second after ${how} in pre-switchover`);
          say(`source ${await source.works()}`);
        } finally {
          await pair.close();
        }
      }
    },

    /** The source's socket closes at the freeze point: what brings the guest back. */
    async lostInPause(say) {
      for (const how of [
        "cancel",
        "continue, cont",
        "continue, cancel",
        "continue, cancel, cont",
      ]) {
        say(`--- ${how}`);
        const pair = await PostcopyPair.open(["postcopy-ram", "pause-before-switchover"], say);
        const { source } = pair;
        try {
          await pair.begin();
          await source.attempt("migrate-start-postcopy");
          await source.until(/pre-switchover/);
          pair.relay.cut();
          await sleep(200);
          if (how.startsWith("continue")) {
            say(
              `continue: ${await source.attempt("migrate-continue", { state: "pre-switchover" })}`,
            );
            await sleep(200);
          }
          if (how.includes("cancel")) say(`cancel: ${await source.attempt("migrate_cancel")}`);
          await sleep(500);
          await pair.tell("half a second later");
          if (how.endsWith("cont")) say(`cont: ${await source.attempt("cont")}`);
          say(`source ${await source.works()}`);
        } finally {
          await pair.close();
        }
      }
    },

    /** The way back once the source says postcopy-active, the dest not running. */
    async noWayBack(say) {
      for (const how of ["cancel", "cut", "cut and cancel", "stop reading the package"]) {
        say(`--- ${how}`);
        const pair = await PostcopyPair.open(["postcopy-ram"], say);
        const { source, dest } = pair;
        try {
          await source.qmp.execute("migrate-set-parameters", { "max-postcopy-bandwidth": SLOW });
          await pair.begin();
          if (how === "stop reading the package") {
            // All that a unix socket buffers is far more than a package of this machine.
            pair.relay.onPackage = () => {
              pair.relay.cut();
              say("cut at the header of the package");
            };
          }
          await source.attempt("migrate-start-postcopy");
          if (how !== "stop reading the package") {
            say(`source: ${await source.until(/postcopy-active/)}`);
            say(`dest: ${await dest.until(/paused . postcopy-active/)}`);
          }
          if (how === "cancel") say(`cancel: ${await source.attempt("migrate_cancel")}`);
          if (how.startsWith("cut")) pair.relay.cut();
          await sleep(500);
          await pair.tell(`half a second after ${how}`);
          if (how === "cut and cancel") say(`cancel: ${await source.attempt("migrate_cancel")}`);
          say(`cont at the source: ${await source.attempt("cont")}`);
          await sleep(1000);
          await pair.tell("after cont at the source");
          say(`source ${await source.works()}`);
        } finally {
          await pair.close();
        }
      }
    },

    /** Everything was sent, the dest runs, and the source's socket closes before SHUT. */
    async beforeShut(say) {
      for (const how of ["as it is", "stopped first"]) {
        say(`--- ${how}`);
        const pair = await PostcopyPair.open(["postcopy-ram", "pause-before-switchover"], say);
        const { source, dest } = pair;
        try {
          await pair.begin();
          pair.relay.keepShut = true;
          if (how === "stopped first") {
            say(`stop: ${await source.attempt("stop")}`);
            await pair.tell("after stop");
          }
          await source.attempt("migrate-start-postcopy");
          say(`source: ${await source.until(/pre-switchover/)}`);
          await source.attempt("migrate-continue", { state: "pre-switchover" });
          say(`dest: ${await dest.until(/completed/)}`);
          say(`cont: ${await dest.attempt("cont")}`);
          await sleep(500);
          await pair.tell("the dest runs");
          pair.relay.cut();
          await sleep(1000);
          await pair.tell("a second after the source's socket closed without SHUT");
          say(`source ${await source.works()}`);
          if (how === "as it is") continue;
          const again = pair.newRelay("again", "nobody.sock");
          say(
            `migrate once more: ${await source.attempt("migrate", { uri: `unix:${pair.path("again.sock")}` })}`,
          );
          await sleep(1000);
          await pair.tell("after another migrate");
          again.close();
        } finally {
          await pair.close();
        }
      }
    },

    /** The dest's QEMU dies, or its load fails; then a fresh one gets the guest from the source. */
    async newDest(say) {
      for (const cut of ["package loaded", "package lost"]) {
        say(`--- ${cut}`);
        const pair = await PostcopyPair.open(["postcopy-ram"], say);
        const { source, dest } = pair;
        try {
          await source.qmp.execute("migrate-set-parameters", { "max-postcopy-bandwidth": SLOW });
          await pair.begin();
          if (cut === "package lost")
            pair.relay.onPackage = () => {
              pair.relay.cut();
            };
          await source.attempt("migrate-start-postcopy");
          if (cut === "package lost") await source.until(/postcopy/);
          if (cut === "package loaded") {
            await dest.until(/paused . postcopy-active/);
            await dest.kill();
          }
          pair.relay.cut();
          say(`source: ${await source.until(/postcopy-paused/)}`);
          await source.qmp.execute("migrate-set-parameters", { "max-postcopy-bandwidth": 0 });
          const other = await pair.start("other", true);
          await other.capabilities("return-path", "events", "late-block-activate", "postcopy-ram");
          const path = pair.path("other.sock");
          await other.qmp.execute("migrate-incoming", {
            uri: `unix:${path}`,
            "exit-on-error": false,
          });
          const rescue = new PostcopyRescue(pair.relay, {
            path,
            sourcePath: pair.path("rescue.sock"),
            say,
          });
          say(
            `resume: ${await source.attempt("migrate", { uri: `unix:${pair.path("rescue.sock")}`, resume: true })}`,
          );
          say(`other: ${await other.until(/completed/)}`);
          say(`source: ${await source.until(/completed/)}`);
          say(`cont: ${await other.attempt("cont")}`);
          say(`other ${await other.works()}`);
          await sleep(3000);
          say(`other ${await other.works()}`);
          rescue.close();
        } finally {
          await pair.close();
        }
      }
    },
  };
