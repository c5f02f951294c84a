#!/usr/bin/env bash
# Boots a systemd of its own, with the package in it, and has it tell the stories of stories.sh.
#
#   boot.sh ROOT.tar PACKAGE.deb FOLDER
#
# ROOT.tar is a small Debian; FOLDER is made and gets the root, the console and what the stories said
# (`told`). Needs root, systemd-nspawn, and no systemd outside: the mounts and control groups are in
# a namespace of its own, and there is no network but loopback.
set -euo pipefail

readonly LIMIT=280

here=$(cd "$(dirname "$0")" && pwd)
root_tar=$(realpath "$1")
package=$(realpath "$2")
mkdir -p "$3"
folder=$(realpath "$3")
readonly here root_tar package folder

if [ -z "${APART:-}" ]; then
  exec env APART=yes unshare --mount --propagation private bash "$0" "$root_tar" "$package" "$folder"
fi

root=$folder/root
shared=$folder/shared
mkdir -p "$root" "$shared"
tar -C "$root" -xf "$root_tar"
cp "$here/stories.sh" "$shared/"
cp "$package" "$shared/sparkferry.deb"

# systemd wants the control groups of version 2 alone; most machines have them mounted so.
if [ "$(stat -f -c %T /sys/fs/cgroup)" != cgroup2fs ]; then
  umount -R /sys/fs/cgroup
  mount -t cgroup2 none /sys/fs/cgroup
fi

cat >"$root/etc/systemd/system/stories.service" <<'UNIT'
[Unit]
Description=The stories
After=multi-user.target

[Service]
Type=oneshot
ExecStart=/bin/bash /story/stories.sh
ExecStopPost=/bin/systemctl poweroff --force
StandardOutput=append:/story/told
StandardError=append:/story/told
UNIT
mkdir -p "$root/etc/systemd/system/default.target.wants"
ln -s ../stories.service "$root/etc/systemd/system/default.target.wants/"

timeout --kill-after=10 "$LIMIT" systemd-nspawn --directory="$root" --boot --register=no --keep-unit \
  --link-journal=no --private-network --resolv-conf=off --timezone=off --console=pipe \
  --bind="$shared:/story" </dev/null >"$folder/console" 2>&1 || true
cat "$shared/told"
