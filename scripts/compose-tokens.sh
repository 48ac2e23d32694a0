#!/bin/sh
# For docker compose: writes the secrets of the two agents, before they start, to the directory $1.
# One that the environment gives is taken; another is drawn once and then kept.
set -eu

# $1 = name of the file, $2 = what the environment gives
write_token() {
  if [ -n "$2" ]; then
    printf '%s\n' "$2" >"$1.new"
  elif [ -s "$1" ]; then
    return
  else
    od -A n -v -t x1 -N 24 /dev/urandom | tr -d ' \n' >"$1.new"
  fi
  mv "$1.new" "$1"
}

umask 077
cd "$1"
write_token api "${VMFERRY_API_TOKEN:-}"
write_token peer "${VMFERRY_PEER_TOKEN:-}"
