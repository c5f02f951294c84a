#!/bin/sh
# A script of a RabbitMQ that lives in a small Debian of its own, run there with the environment and
# the arguments that it was given. As root.
#
# prepare.sh makes target/tmp/rabbitmq-VERSION/: root/ is the Debian, bin/ has a link to this for each
# script. What the tests share with it (their folders, the project's files) lies there where it lies
# here; the mounts are the process's own and go with it.
set -eu

script=$(basename "$0")
root=$(cd "$(dirname "$0")/../root" && pwd)
project=$(cd "$(dirname "$(readlink -f "$0")")/../../.." && pwd)
export root script project

# Each is one process after the other under one id: who kills or freezes it or its group means the node.
exec unshare --mount --propagation private sh -euc '
  for shared in /proc /dev /tmp "${TMPDIR:-/tmp}" "${HOME:-/root}" "$project"; do
    mkdir -p "$root$shared"
    mount --rbind "$shared" "$root$shared"
  done
  mount --bind /etc/hosts "$root/etc/hosts"
  exec chroot "$root" "/usr/lib/rabbitmq/bin/$script" "$@"
' sh "$@"
