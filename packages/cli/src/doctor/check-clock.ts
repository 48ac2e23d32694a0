import { passes, skips, warns, type Finding } from "./finding.ts";
import { runProgramHere } from "./run-program.ts";

/** Whether the kernel says that something keeps its clock right. Only systemd tells it cheaply. */
export async function checkClock(timedatectl = "timedatectl"): Promise<Finding> {
  let answer: string;
  try {
    answer = await runProgramHere(timedatectl, ["show", "--property=NTPSynchronized", "--value"]);
  } catch {
    return skips(
      "cannot be told here, as timedatectl does not answer: see that an NTP client keeps it right",
    );
  }
  if (answer.trim() === "yes") return passes("kept right by NTP");
  return warns(
    "not kept right by anything",
    "Certificates and the times in events need the right time: run an NTP client, such as systemd-timesyncd.",
  );
}
