import {
  attachGuest,
  listGuests,
  showGuest,
  startGuest,
  stopGuest,
  type AttachOptions,
} from "../commands/guests.ts";
import { PRINT_ANSWER, type Commands, type JsonFlag } from "./commands.ts";

const START_HELP = `
FILE holds the body of POST /v1/guests; its disks, kernel and initrd are names of files in the
agent's image directory. The smallest one:

  { "name": "web1", "machine": "pc-q35-10.0", "memoryBytes": 536870912,
    "boot": { "kernel": "vmlinuz", "initrd": "initrd.img", "cmdline": "console=ttyS0" } }`;

const ATTACH_HELP = `
A source agent attaches to a QEMU whose guest is to move away, a dest agent to one that waits for a
guest (-S -incoming defer). Nothing is done to it; vmferry guest stop lets go of it again. A monitor
for the agent alone:

  -chardev socket,id=vmferry,path=/run/web1.sock,server=on,wait=off -mon chardev=vmferry,mode=control`;

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
    [
      "stop",
      "NAME",
      "power a guest off; one that was attached goes on without the agent",
      "of a guest: see vmferry guest list",
      stopGuest,
    ],
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
  guest
    .command("attach")
    .description("take up a QEMU that somebody else started")
    .argument("<NAME>", "that the guest shall have; QEMU's own name for it where it has one")
    .requiredOption("--qmp <PATH>", "the socket of a QMP monitor that nobody else uses")
    .option("--cpu <CPU>", "as on its command line: without it no destination launches the guest")
    .option("--shared-disks <ID...>", "disks that both hosts see, and that are not copied")
    .option("--json", PRINT_ANSWER)
    .addHelpText("after", ATTACH_HELP)
    .action((name: string, options: AttachOptions) =>
      run((context) => attachGuest(context, name, options)),
    );
}
