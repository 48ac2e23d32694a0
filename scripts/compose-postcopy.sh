#!/bin/sh
# For docker compose, as root that may make devices and nothing else: makes $1 a /dev/userfaultfd for
# any user of the container that gets it. The host's own stays as it is.
# Where there is none (Linux before 6.1, an engine without root), a file that nobody can open is in its
# place: dest starts all the same, and says that it receives no guest by post-copy.
set -eu
umask 0
rm -f "$1"
minor=$(awk '$2 == "userfaultfd" { print $1 }' /proc/misc)
if [ -n "$minor" ] && mknod -m 666 "$1" c 10 "$minor"; then exit; fi
echo "no /dev/userfaultfd can be had here: migrations by post-copy are refused" >&2
install -m 000 /dev/null "$1"
