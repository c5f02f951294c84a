#!/usr/bin/env bash
# Builds the image of docker/Dockerfile with buildah, without a container engine's daemon and
# without pulling: the two base images are made here from Debian's packages, and the compiler is the
# machine's own, mounted. As root.
#
#   image.sh TAG      the image's name; its base stays as docker.io/library/debian:bookworm-slim
set -euo pipefail
cd "$(dirname "$0")/../../.."

readonly tag=$1
readonly debian=docker.io/library/debian:bookworm-slim rust=docker.io/library/rust:1.95-bookworm
toolchain=$(rustc --print sysroot)
registry=${CARGO_HOME:-$HOME/.cargo}/registry
readonly toolchain registry

# base NAME SETTINGS PACKAGES: an image like the public one of that name, where there is none yet.
base() {
  local name=$1 environment=$2 packages=$3 tar
  if podman image exists "$name"; then
    return
  fi
  tar=$(mktemp --suffix=.tar)
  mmdebstrap --quiet --variant=minbase --include="$packages" bookworm "$tar"
  podman import --quiet --change "$environment" "$tar" "$name" >&2
  rm -f "$tar"
}

base "$debian" "ENV PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin" bash
base "$rust" "ENV PATH=/usr/local/rust/bin:/usr/sbin:/usr/bin:/sbin:/bin" \
  ca-certificates,gcc,libc6-dev,protobuf-compiler,libprotobuf-dev

mkdir -p "$registry"
buildah bud --quiet --format docker --isolation chroot --pull-never --layers \
  --volume "$toolchain:/usr/local/rust:ro" \
  --volume "$registry:/root/.cargo/registry" \
  --volume /etc/ssl/certs:/etc/ssl/certs:ro \
  --build-arg COMMIT="$(git rev-parse HEAD 2>/dev/null || echo unknown)" \
  --file docker/Dockerfile --tag "$tag" .
