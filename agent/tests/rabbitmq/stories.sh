#!/usr/bin/env bash
# The stories over RabbitMQ, on other versions of it than the installed one: stories.sh 4.0 4.3
#
# `prepare.sh test` has brought them (TEST_RABBITMQ). One node of each is what TEST_AMQP_URL names; stories
# that want a node of their own start one of the same version. As root; else nothing is tried, and said so.
set -euo pipefail
cd "$(dirname "$0")/../../.."

target=$(cargo metadata --format-version 1 --no-deps --offline | sed 's/.*"target_directory":"\([^"]*\)".*/\1/')
# Modules with stories over RabbitMQ, whose other tests need none.
readonly LIBRARY=(queue::amqp::)
readonly PROGRAM=(amqps:: soak:: stories::)
readonly NOT=(on_sqlite stories::disk_full:: stories::page:: stories::sdk::)
folder=$(mktemp -d)
node=
readonly target folder

say() { echo "rabbitmq: $*" >&2; }

stop() {
  if [ -n "$node" ]; then
    # The group: the script, the node and its helpers.
    kill -s KILL -- "-$node" 2>/dev/null || true
    wait "$node" 2>/dev/null || true
    node=
  fi
}

finish() {
  stop
  rm -rf "$folder"
}
trap finish EXIT

free_port() {
  local port
  while port=$((15000 + RANDOM % 15000)); do
    if ! (exec 3<>"/dev/tcp/127.0.0.1/$port") 2>/dev/null; then
      echo "$port"
      return
    fi
  done
}

# start SCRIPTS: a node as `guest` finds it, in a folder of its own; sets TEST_AMQP_URL.
start() {
  local scripts=$1 port home second
  port=$(free_port)
  home=$folder/$port
  mkdir "$home"
  printf 'listeners.tcp.1 = 127.0.0.1:%s\n' "$port" >"$home/rabbitmq.conf"
  echo '[].' >"$home/enabled_plugins"
  : >"$home/env.conf"
  set -m
  env HOME="$home" RABBITMQ_NODENAME="sparkferry-stories-$port@localhost" RABBITMQ_LOGS=- \
    RABBITMQ_CONF_ENV_FILE="$home/env.conf" RABBITMQ_CONFIG_FILE="$home/rabbitmq.conf" \
    RABBITMQ_ENABLED_PLUGINS_FILE="$home/enabled_plugins" RABBITMQ_MNESIA_BASE="$home/data" \
    RABBITMQ_LOG_BASE="$home/log" RABBITMQ_PID_FILE="$home/pid" RABBITMQ_DIST_PORT="$(free_port)" \
    ERL_EPMD_ADDRESS=127.0.0.1 "$scripts/rabbitmq-server" >"$home/output" 2>&1 </dev/null &
  node=$!
  set +m
  for ((second = 0; second < 90; second++)); do
    if grep -q "Server startup complete" "$home/output"; then
      export TEST_AMQP_URL=amqp://guest:guest@127.0.0.1:$port/%2f
      return
    fi
    kill -0 "$node" 2>/dev/null || break
    sleep 1
  done
  say "the node did not start:"
  tail -n 20 "$home/output" >&2
  exit 1
}

# joined BEFORE AFTER WORD...: `BEFORE WORD AFTER | BEFORE ...`
joined() {
  local before=$1 after=$2 word all=
  shift 2
  for word in "$@"; do
    all+="${all:+ | }$before$word$after"
  done
  echo "$all"
}

run() {
  if cargo nextest --version >/dev/null 2>&1; then
    cargo nextest run --locked --package sparkferry-agent --lib --test it --no-fail-fast -E "
      ((kind(lib) & ($(joined 'test(/^' '/)' "${LIBRARY[@]}"))) |
       (binary(it) & ($(joined 'test(/^' '/)' "${PROGRAM[@]}")))) & not ($(joined 'test(/' '/)' "${NOT[@]}"))"
  else
    cargo test --locked --package sparkferry-agent --lib -- "${LIBRARY[@]}"
    cargo test --locked --package sparkferry-agent --test it -- "${PROGRAM[@]}" "${NOT[@]/#/--skip=}"
  fi
}

for version in "$@"; do
  if [ "$(id -u)" != 0 ]; then
    say "SKIPPED: the stories on RabbitMQ $version, which only root can run (TEST_RABBITMQ)"
    continue
  fi
  export RABBITMQ_BIN=$target/tmp/rabbitmq-$version/bin
  if [ ! -x "$RABBITMQ_BIN/rabbitmq-server" ]; then
    say "SKIPPED: the stories on RabbitMQ $version, which is not here (agent/tests/prepare.sh test brings it)"
    continue
  fi
  start "$RABBITMQ_BIN"
  say "the stories on RabbitMQ $("$RABBITMQ_BIN/rabbitmqctl" version)"
  run
  stop
done
