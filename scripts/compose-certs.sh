#!/bin/sh
# For docker compose: makes a private authority and certificates of both agents, before they start, in
# the directory $1. They are made once and then kept.
set -eu
for host in source dest; do
  [ -d "$1/$host" ] || vmferry certs init "$1" --host "$host"
done
