#!/bin/sh
# Builds the guest that demo and tests boot: a kernel from Debian's packages, and an initramfs of
# busybox, the kernel's virtio modules and the workload in guest/.
#
#   scripts/build-guest.sh [--quiet]
#
# The result is vmlinuz and initrd.img in .cache/guest of the checkout, or in VMFERRY_GUEST_CACHE.
# It is built again when guest/ or this script has changed, and then with the kernel that was
# fetched the first time: so the network is used once. Remove the folder to get a newer kernel.
set -eu

# In the order in which they need each other. What the kernel has built in is left out.
MODULES="virtio_ring virtio virtio_pci_legacy_dev virtio_pci_modern_dev virtio_pci virtio_blk"
KERNEL_METAPACKAGE=linux-image-cloud-amd64

say() {
  echo "guest: $*"
}

fail() {
  echo "guest: $*" >&2
  exit 1
}

# The workload is described by these files; a change of the documentation builds nothing.
hash_inputs() {
  (cd "$checkout" && sha256sum scripts/build-guest.sh guest/*.c guest/*.h guest/init) |
    sha256sum | cut -d ' ' -f 1
}

require_tools() {
  for tool in gcc cpio busybox apt-get apt-cache dpkg flock; do
    command -v "$tool" >/dev/null || fail "$tool is missing: run scripts/setup.sh"
  done
  # In the initramfs there are no libraries for a dynamic one.
  if ldd "$(command -v busybox)" 2>/dev/null | grep -q '=>'; then
    fail "busybox is not static, the package busybox-static is: run scripts/setup.sh"
  fi
}

# The package that the metapackage stands for at the moment; empty while apt has no lists.
find_kernel_package() {
  apt-cache depends "$KERNEL_METAPACKAGE" 2>/dev/null |
    sed -n 's/^ *Depends: \(linux-image-[^ ]*\)$/\1/p' | head -n 1
}

# Root's downloads need not be readable by apt's own user, who has no way into this folder.
download_kernel() {
  package=$(find_kernel_package)
  [ -n "$package" ] || return 1
  say "fetching $package"
  (cd "$work" && apt-get -qq -o APT::Sandbox::User=root download "$package")
}

# apt's lists may be absent on a fresh machine, or name a kernel that the mirror has replaced.
download_kernel_with_fresh_lists() {
  download_kernel && return
  [ "$(id -u)" -eq 0 ] || fail "apt does not find the kernel; run as root: apt-get update"
  say "refreshing the package lists"
  apt-get -qq update || fail "apt-get update failed"
  download_kernel || fail "cannot fetch $KERNEL_METAPACKAGE: a Debian mirror for amd64 is needed"
}

# $1 module, $2 unpacked package, $3 destination file
extract_module() {
  file=$(find "$2" -name "$1.ko" -o -name "$1.ko.xz" | head -n 1)
  case $file in
  *.ko) cp "$file" "$3" ;;
  *.ko.xz) xz -dc "$file" >"$3" ;;
  *)
    find "$2" -name modules.builtin -exec grep -q "/$1\.ko" {} + ||
      fail "the kernel package has no module $1"
    ;;
  esac
}

# Fills $cache/kernel with vmlinuz, the modules, and the package's version.
fetch_kernel() {
  download_kernel_with_fresh_lists
  set -- "$work"/linux-image-*.deb
  dpkg -x "$1" "$work/package"
  mkdir -p "$work/kernel/modules"
  cp "$work"/package/boot/vmlinuz-* "$work/kernel/vmlinuz"
  number=10
  for module in $MODULES; do
    extract_module "$module" "$work/package" "$work/kernel/modules/$number-$module.ko"
    number=$((number + 1))
  done
  dpkg-deb --show --showformat '${Package} ${Version}\n' "$1" >"$work/kernel/version"
  rm -rf "$cache/kernel"
  mv "$work/kernel" "$cache/kernel"
}

# Without vectorising: the emulated processor is slower at vectors than at plain words.
compile_workload() {
  gcc -std=gnu17 -O2 -fno-tree-vectorize -Wall -Wextra -Wconversion -Wshadow -static -pthread -s \
    -o "$1" "$checkout"/guest/*.c || fail "the workload does not compile"
}

# Not compressed: the guest would spend longer unpacking than the host saves by reading less.
build_initramfs() {
  root=$work/root
  mkdir -p "$root/bin" "$root/dev" "$root/proc" "$root/sys" "$root/modules"
  cp "$(command -v busybox)" "$root/bin/busybox"
  cp "$checkout/guest/init" "$root/init"
  for module in "$cache"/kernel/modules/*.ko; do
    [ ! -e "$module" ] || cp "$module" "$root/modules/"
  done
  compile_workload "$root/workload"
  chmod -R u=rwX,go=rX "$root"
  chmod 755 "$root/init" "$root/bin/busybox" "$root/workload"
  (cd "$root" && find . | LC_ALL=C sort | cpio --quiet -o -H newc -R 0:0) >"$work/initrd.img"
}

# Each file is replaced at once, so that a QEMU that starts meanwhile reads the old or the new.
publish() {
  cp "$cache/kernel/vmlinuz" "$work/vmlinuz"
  rm -f "$cache/stamp"
  mv "$work/vmlinuz" "$work/initrd.img" "$cache/"
  echo "$inputs $(cat "$cache/kernel/version")" >"$work/stamp"
  mv "$work/stamp" "$cache/stamp"
}

is_built() {
  [ -s "$cache/vmlinuz" ] && [ -s "$cache/initrd.img" ] && [ -e "$cache/stamp" ] &&
    read -r built _ <"$cache/stamp" && [ "$built" = "$inputs" ]
}

quiet=false
case ${1:-} in
--quiet) quiet=true ;;
"") ;;
*) fail "usage: build-guest.sh [--quiet]" ;;
esac

checkout=$(cd "$(dirname "$0")/.." && pwd)
cache=${VMFERRY_GUEST_CACHE:-$checkout/.cache/guest}
inputs=$(hash_inputs)
if is_built; then
  $quiet || say "$cache is up to date"
  exit 0
fi

require_tools
mkdir -p "$cache"
exec 9>"$cache/lock"
flock 9
is_built && exit 0 # whoever held the lock has done it
work=$(mktemp -d "$cache/build.XXXXXX")
trap 'rm -rf "$work"' EXIT
trap 'exit 1' HUP INT TERM
[ -s "$cache/kernel/version" ] || fetch_kernel
say "building initramfs for $(cat "$cache/kernel/version")"
build_initramfs
publish
