import { listGuests, showGuest, startGuest, stopGuest } from "../commands/guests.ts";
import { PRINT_ANSWER, type Commands, type JsonFlag } from "./commands.ts";

const START_HELP = `
FILE holds the body of POST /v1/guests; its disks, kernel and initrd are names of files in the
agent's image directory. The smallest one:

  { "name": "web1", "machine": "pc-q35-10.0", "memoryBytes": 536870912,
    "boot": { "kernel": "vmlinuz", "initrd": "initrd.img", "cmdline": "console=ttyS0" } }`;

export function addGuestCommands({ program, run }: Commands): void {
  const guest = program.command("guest").description("list, show, start and stop guests");
  guest
    .command("list")
    .description("list guests")
    .option("--json", PRINT_ANSWER)
    .action((options: JsonFlag) => run((context) => listGuests(context, options)));
  const commands = [
    ["show", "NAME", "show one guest", "of a guest: see vmferry guest list", showGuest],
    ["start", "FILE", "start the guest that FILE defines", "JSON; - is the input", startGuest],
    ["stop", "NAME", "power a guest off", "of a guest: see vmferry guest list", stopGuest],
  ] as const;
  for (const [name, argument, description, meaning, work] of commands) {
    const command = guest
      .command(name)
      .description(description)
      .argument(`<${argument}>`, meaning)
      .option("--json", PRINT_ANSWER)
      .action((value: string, options: JsonFlag) =>
        run((context) => work(context, value, options)),
      );
    if (name === "start") command.addHelpText("after", START_HELP);
  }
}
