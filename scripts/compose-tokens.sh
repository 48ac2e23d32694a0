#!/bin/sh
# For docker compose: writes the token of both agents' API, before they start, to the directory $1.
# One that the environment gives is taken; another is drawn once and then kept.
set -eu
umask 077
cd "$1"
if [ -n "${VMFERRY_API_TOKEN:-}" ]; then
  printf '%s\n' "$VMFERRY_API_TOKEN" >api.new
elif [ -s api ]; then
  exit
else
  od -A n -v -t x1 -N 24 /dev/urandom | tr -d ' \n' >api.new
fi
mv api.new api
