// Ends the connection between an agent and a QEMU, both of which live on: neither has done it.

import { execFile } from "node:child_process";
import { readdirSync, readFileSync, readlinkSync } from "node:fs";
import { promisify } from "node:util";
import { assert } from "@vmferry/core";

/** Takes a descriptor of another process (pidfd_open, pidfd_getfd) and shuts the socket behind it. */
const SHUT = `
my ($pid, $fd) = @ARGV;
my $process = syscall(434, $pid + 0, 0);
my $taken = $process < 0 ? -1 : syscall(438, $process, $fd + 0, 0);
die "descriptor $fd of process $pid: $!" if $taken < 0;
open(my $socket, "+<&=", $taken) or die "open: $!";
shutdown($socket, 2) or die "shutdown: $!";
`;
const CONNECTED = "03";

/** Of the monitor at `path`, whose one connection that QEMU has. Needs root. */
export async function cutMonitor(pid: number, path: string): Promise<void> {
  const inodes = readFileSync("/proc/net/unix", "utf8")
    .split("\n")
    .map((line) => line.trim().split(/\s+/))
    .filter((words) => words[5] === CONNECTED && words[7] === path)
    .map((words) => `socket:[${words[6]}]`);
  const directory = `/proc/${pid}/fd`;
  const fds = readdirSync(directory).filter((fd) => {
    try {
      return inodes.includes(readlinkSync(`${directory}/${fd}`));
    } catch {
      return false; // closed meanwhile
    }
  });
  const [fd] = fds;
  assert(fd !== undefined && fds.length === 1, "an agent is connected to the monitor");
  await promisify(execFile)("perl", ["-e", SHUT, String(pid), fd]);
}
