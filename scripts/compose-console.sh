#!/bin/sh
# For docker compose: shows a report of the guest `demo` every five seconds, and where it runs.
# $1, $2 = the state directories of source and dest.
set -eu

# $1 = where, $2 = the state directory there. mawk would wait for a full block otherwise.
show_reports() {
  tail --follow=name --retry --lines=0 "$2/guests/demo/serial.log" 2>/dev/null |
    awk -W interactive -v where="$1" '
      /^VF ERROR/ || /^VF seq=/ && reports++ % 50 == 0 { print where ": " $0; fflush() }'
}

show_reports source "$1" &
show_reports dest "$2" &
wait
