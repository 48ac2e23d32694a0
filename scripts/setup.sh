#!/bin/sh
# Makes a Debian machine ready for demo, tests and benchmarks: what is missing is installed,
# nothing else is touched. Takes a moment when nothing is missing, so everything may call it first.
#
#   scripts/setup.sh [--quiet] [--bench] [--tests] [--packages]
#
#   --quiet     say only what is being done, and what fails
#   --bench     also as an ordinary user ask for what only benchmarks and tests as root need
#   --tests     as root also the browser that the dashboard is tested in
#   --packages  Debian's packages only: for root, when somebody else owns the checkout
set -eu

QEMU_MAJOR_MIN=10 # an older QEMU loses dirty pages under TCG
BACKPORTS=bookworm-backports
BACKPORTS_ENTRY=/etc/apt/sources.list.d/vmferry-$BACKPORTS.sources

say() {
  echo "setup: $*"
}

say_unless_quiet() {
  $quiet || say "$*"
}

fail() {
  echo "setup: $*" >&2
  exit 1
}

# --- what is missing ---------------------------------------------------------------------------

has_new_qemu() {
  major=$("${VMFERRY_QEMU:-qemu-system-x86_64}" --version 2>/dev/null |
    sed -n '1s/.* version \([0-9]*\)\..*/\1/p')
  [ "${major:-0}" -ge $QEMU_MAJOR_MIN ]
}

# What only root's tests and benchmarks need: network namespaces, and the tools of others that disks
# are tested with. An ordinary user's do without them.
wants_everything() {
  $bench || [ "$(id -u)" -eq 0 ]
}

# Large, and nothing but tests use it; an ordinary user's go without.
wants_browser() {
  $tests && [ "$(id -u)" -eq 0 ]
}

list_wanted_packages() {
  echo busybox-static cpio gcc libc6-dev openssl xz-utils
  ! wants_everything || echo iproute2 libnbd-bin fio nbdkit
  ! wants_browser || echo chromium systemd
}

# Prints those of the packages that are not installed, on one line.
list_missing_packages() {
  installed=" $(dpkg-query -W -f '${Package}/${db:Status-Status} ' "$@" 2>/dev/null || :)"
  for package in "$@"; do
    case $installed in
    *" $package/installed "*) ;;
    *) printf '%s ' "$package" ;;
    esac
  done
}

is_installed() {
  [ -z "$(list_missing_packages "$1")" ]
}

has_new_qemu_utils() {
  major=$(qemu-img --version 2>/dev/null | sed -n '1s/.* version \([0-9]*\)\..*/\1/p')
  [ "${major:-0}" -ge $QEMU_MAJOR_MIN ]
}

# New enough, and where both are Debian's of the same version as QEMU itself.
has_fitting_qemu_utils() {
  has_new_qemu_utils || return 1
  ! is_installed qemu-system-x86 || ! is_installed qemu-utils ||
    [ "$(dpkg-query -W -f '${Version}\n' qemu-system-x86 qemu-utils | uniq | wc -l)" -eq 1 ]
}

# QEMU and its tools. One that is there is named with one that is missing: apt brings both to the
# same version.
list_missing_qemu_packages() {
  system=
  utils=
  has_new_qemu || system=qemu-system-x86
  ! wants_everything || has_fitting_qemu_utils || utils=qemu-utils
  if [ -n "$utils" ] && is_installed qemu-system-x86; then system=qemu-system-x86; fi
  if [ -n "$system" ] && is_installed qemu-utils; then utils=qemu-utils; fi
  echo "$system${system:+${utils:+ }}$utils"
}

# --- where QEMU 10 comes from on Debian 12 -----------------------------------------------------

# Turns a deb822 file into an entry for backports: its first stanza with bookworm's main, with
# everything that says where and how to fetch, and whom to trust, left as it is.
derive_from_deb822() {
  awk -v RS= -v backports=$BACKPORTS '
    {
      delete values
      entry = name = ""
      count = split($0, lines, "\n")
      for (i = 1; i <= count; i++) {
        line = lines[i]
        if (line ~ /^#/) continue
        if (line ~ /^[^ \t:]+:/) {
          name = tolower(substr(line, 1, index(line, ":") - 1))
          if (name == "types") entry = entry "Types: deb\n"
          if (name == "suites") entry = entry "Suites: " backports "\n"
          if (name == "components") entry = entry "Components: main\n"
        }
        values[name] = values[name] " " substr(line, line ~ /^[ \t]/ ? 1 : index(line, ":") + 1) " "
        if (name !~ /^(types|suites|components)$/) entry = entry line "\n"
      }
      gsub(/[ \t]+/, " ", values["types"])
      gsub(/[ \t]+/, " ", values["suites"])
      gsub(/[ \t]+/, " ", values["components"])
      if (values["types"] !~ / deb / || values["suites"] !~ / bookworm / ||
          values["components"] !~ / main / || values["enabled"] ~ /no|false/) next
      printf "%s", entry
      exit
    }' "$1"
}

# The same from a file with a line for each source: "deb [options] mirror suite components".
derive_from_lines() {
  awk -v backports=$BACKPORTS '
    BEGIN {
      fields["signed-by"] = "Signed-By"
      fields["arch"] = "Architectures"
      fields["trusted"] = "Trusted"
      fields["check-valid-until"] = "Check-Valid-Until"
    }
    /^[ \t]*deb[ \t]/ {
      sub(/#.*/, "")
      options = ""
      if (match($0, /\[[^]]*\]/)) {
        options = substr($0, RSTART + 1, RLENGTH - 2)
        $0 = substr($0, 1, RSTART - 1) " " substr($0, RSTART + RLENGTH)
      }
      if ($2 ~ /^cdrom:/ || $3 != "bookworm" || " " $0 " " !~ / main /) next
      print "Types: deb\nURIs: " $2 "\nSuites: " backports "\nComponents: main"
      count = split(options, each, /[ \t]+/)
      for (i = 1; i <= count; i++) {
        equals = index(each[i], "=")
        name = fields[substr(each[i], 1, equals - 1)]
        value = substr(each[i], equals + 1)
        gsub(/,/, " ", value)
        if (name != "") print name ": " value
      }
      exit
    }' "$1"
}

# $1 = apt's configuration folder. Prints the entry, or nothing where there is nothing to go by.
derive_backports_entry() {
  entry=
  if [ -r "$1/sources.list.d/debian.sources" ]; then
    entry=$(derive_from_deb822 "$1/sources.list.d/debian.sources")
  fi
  if [ -z "$entry" ] && [ -r "$1/sources.list" ]; then
    entry=$(derive_from_lines "$1/sources.list")
  fi
  [ -z "$entry" ] || printf '# Written by scripts/setup.sh of vmferry, for QEMU 10.\n%s\n' "$entry"
}

offers_backports() {
  apt-cache madison qemu-system-x86 | grep -q "$BACKPORTS/"
}

add_backports() {
  offers_backports && return
  entry=$(derive_backports_entry /etc/apt)
  [ -n "$entry" ] ||
    fail "/etc/apt names no mirror with bookworm's main: add $BACKPORTS, which has QEMU 10"
  say "adding $BACKPORTS_ENTRY"
  printf '%s\n' "$entry" >"$BACKPORTS_ENTRY"
  update_lists
  offers_backports || fail "the mirror in $BACKPORTS_ENTRY has no QEMU in $BACKPORTS"
}

# --- installing --------------------------------------------------------------------------------

# Another apt may be at work on a machine that was just started.
run_apt() {
  if $quiet; then
    DEBIAN_FRONTEND=noninteractive apt-get -qq -o DPkg::Lock::Timeout=120 "$@" >/dev/null
  else
    DEBIAN_FRONTEND=noninteractive apt-get -q -o DPkg::Lock::Timeout=120 "$@"
  fi
}

update_lists() {
  say "apt-get update"
  run_apt update || fail "apt-get update failed"
}

# Further arguments go to apt-get.
install_packages() {
  say "apt-get install $*"
  run_apt install -y --no-install-recommends "$@" || fail "apt-get install $* failed"
}

# $1 = Debian's version; the other arguments are packages.
install_qemu() {
  if [ "$1" = 12 ]; then
    shift
    add_backports
    install_packages -t $BACKPORTS "$@"
  else
    shift
    install_packages "$@"
  fi
  has_new_qemu ||
    fail "an older QEMU is still found first: look at PATH and VMFERRY_QEMU"
  ! wants_everything || has_new_qemu_utils ||
    fail "an older qemu-img is still found first: look at PATH"
}

# Prints the version of this Debian, nothing where it is none. One without a number is the next.
read_debian_version() (
  ID=
  VERSION_ID=
  [ ! -r /etc/os-release ] || . /etc/os-release
  [ "$ID" != debian ] || echo "${VERSION_ID:-testing}"
)

# Where apt cannot help, says what a person has to do.
require_known_debian() {
  need="QEMU $QEMU_MAJOR_MIN or newer for x86_64, and to build the demo guest Debian 12 or newer"
  need="$need with busybox-static, cpio, gcc, libc6-dev, openssl and xz-utils"
  case $debian in
  "") fail "this is not Debian. What vmferry needs: $need" ;;
  [0-9] | 10 | 11) fail "Debian $debian is too old. What vmferry needs: $need" ;;
  esac
  [ "$(dpkg --print-architecture)" = amd64 ] || fail "the demo guest is built on amd64 only"
}

setup_packages() {
  debian=$(read_debian_version)
  if [ -z "$debian" ] && has_new_qemu && [ -s "$guest_cache/initrd.img" ]; then
    return # somebody has taken care of it
  fi
  # shellcheck disable=SC2046 # a list of names
  missing=$(list_missing_packages $(list_wanted_packages))
  qemu=$(list_missing_qemu_packages)
  if [ -z "$missing$qemu" ]; then
    say_unless_quiet "Debian's packages are all there"
    return
  fi
  require_known_debian
  if [ "$(id -u)" -ne 0 ]; then
    say "missing: $missing${qemu:+$qemu ($QEMU_MAJOR_MIN or newer)}" >&2
    fail "run as root: sh '$checkout/scripts/setup.sh' --packages$bench_flag"
  fi
  update_lists
  # shellcheck disable=SC2086 # a list of names
  [ -z "$missing" ] || install_packages $missing
  # shellcheck disable=SC2086 # a list of names
  [ -z "$qemu" ] || install_qemu "$debian" $qemu
}

# --- what belongs to the checkout --------------------------------------------------------------

# npm's own record of what it has installed; npm ci writes it anew.
has_current_node_modules() {
  [ -e "$checkout/node_modules/.package-lock.json" ] &&
    [ ! "$checkout/package-lock.json" -nt "$checkout/node_modules/.package-lock.json" ]
}

# npm must not run on the Node in node_modules, which it is about to replace.
drop_node_modules_from_path() {
  printf '%s' "$PATH" | tr ':' '\n' | grep -v '/node_modules/\.bin$' | paste -s -d :
}

setup_node_modules() {
  if has_current_node_modules; then
    say_unless_quiet "node_modules is up to date"
    return
  fi
  PATH=$(drop_node_modules_from_path)
  for tool in node npm; do
    command -v $tool >/dev/null && continue
    # Node.js 24, on which vmferry runs, is among the packages that npm ci installs.
    fail "$tool is missing: install any Node.js with npm, as root: apt-get install nodejs npm"
  done
  say "npm ci"
  (cd "$checkout" && npm ci --loglevel=error >/dev/null) || fail "npm ci failed"
}

# ------------------------------------------------------------------------------------------------

main() {
  quiet=false
  bench=false
  tests=false
  bench_flag=
  packages_only=false
  for argument in "$@"; do
    case $argument in
    --quiet) quiet=true ;;
    --bench) bench=true bench_flag=" --bench" ;;
    --tests) tests=true ;;
    --packages) packages_only=true ;;
    *) fail "usage: setup.sh [--quiet] [--bench] [--tests] [--packages]" ;;
    esac
  done
  checkout=$(cd "$(dirname "$0")/.." && pwd)
  guest_cache=${VMFERRY_GUEST_CACHE:-$checkout/.cache/guest}
  setup_packages
  ! $packages_only || return 0
  (setup_node_modules)
  if $quiet; then
    sh "$checkout/scripts/build-guest.sh" --quiet
  else
    sh "$checkout/scripts/build-guest.sh"
  fi
}

main "$@"
