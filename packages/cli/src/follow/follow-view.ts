import type { Migration, MigrationEvent } from "../api/migration.ts";
import type { LocalContext } from "../command-context.ts";
import { ProgressDisplay } from "../render/progress-display.ts";
import { shareText } from "../render/share-text.ts";
import { summaryLine } from "../render/summary-line.ts";

/** How a followed migration is shown. */
export interface FollowView {
  readonly onEvent: (event: MigrationEvent) => void;
  readonly onNotice: (text: string) => void;
  /** The last thing to be shown of the migration. */
  readonly onEnded: (migration: Migration) => void;
  /** Leaves the terminal as others expect it. */
  readonly close: () => void;
}

export function followView(context: LocalContext, json: boolean): FollowView {
  return json ? jsonView(context) : lineView(context);
}

/** A line of JSON an event, and the migration as the last one. */
function jsonView({ stdout, stderr }: LocalContext): FollowView {
  const writeJson = (value: unknown): void => {
    stdout.write(`${JSON.stringify(value)}\n`);
  };
  return {
    onEvent: writeJson,
    onEnded: writeJson,
    onNotice: (text) => {
      stderr.write(`${text}\n`);
    },
    close: () => undefined,
  };
}

function lineView({ stdout, environment }: LocalContext): FollowView {
  const display = new ProgressDisplay(stdout, environment);
  let inDoubt = false;
  let toldOfShare: string | null = null;
  return {
    onEvent: (event) => {
      display.show(event);
      const { phase, error } = event.migration;
      // That one may take a person to end: it is told at once what can be done.
      if (!inDoubt && phase === "in-doubt" && error !== null) {
        display.say(`in doubt: ${error.detail}`);
      }
      inDoubt = phase === "in-doubt";
      const onShare = shareText(event.migration);
      if (onShare !== null && onShare !== toldOfShare) {
        display.say(onShare);
        toldOfShare = onShare;
      }
    },
    onNotice: (text) => {
      display.say(text);
    },
    onEnded: (migration) => {
      display.close();
      display.say(summaryLine(migration));
    },
    close: () => {
      display.close();
    },
  };
}
