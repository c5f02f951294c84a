#!/usr/bin/env bash
# Builds the image, and runs it as docker/compose.yaml does: a sandbox, three workers, a producer,
# over the RabbitMQ of TEST_AMQP_URL. As root, without a container engine's daemon. TEST_IMAGE names
# one that is built already.
set -euo pipefail
cd "$(dirname "$0")/../../.."

# podman can't have the host's cgroups where it is itself in a container: it gets mounts of its own.
if [ "${1:-}" != inside ]; then
  [ -n "${TEST_IMAGE:-}" ] || agent/tests/containers/image.sh sparkferry
  exec unshare --mount --propagation private "$0" inside
fi
umount /sys/fs/cgroup/unified 2>/dev/null || true

readonly most_added=$((30 * 1000 * 1000)) # bytes over the base
readonly url=${TEST_AMQP_URL:-amqp://guest:guest@127.0.0.1:5672/%2f}
readonly namespace=image-$$ image=${TEST_IMAGE:-sparkferry}
folder=$(mktemp -d)
started=()

fail() {
  echo "FAILED: $*" >&2
  for name in "${started[@]}"; do
    echo "--- $name" >&2
    podman logs "$name" >&2 || true
  done
  exit 1
}

cleanup() {
  [ ${#started[@]} = 0 ] || podman rm --force --time 0 "${started[@]}" >/dev/null 2>&1 || true
  rm -rf "$folder"
}
trap cleanup EXIT

# container NAME PODMAN-ARGUMENT... : nothing but what compose allows.
container() {
  local name=$namespace-$1
  shift
  podman --runtime crun run --cgroups=disabled --network=host \
    --ulimit nofile=1024:1024 --ulimit nproc=1024:1024 \
    --read-only --read-only-tmpfs=false --cap-drop=all --security-opt=no-new-privileges \
    --volume "$folder:/run/secrets:ro" \
    --env SPARKFERRY__NAMESPACE="$namespace" \
    --name "$name" "$@"
}

background() {
  started+=("$namespace-$1")
  container "$1" --detach "${@:2}" >/dev/null
}

# until SECONDS WHAT COMMAND...
await() {
  local what=$2 end=$((SECONDS + $1))
  shift 2
  until "$@" >/dev/null 2>&1; do
    [ $SECONDS -lt $end ] || fail "waited in vain: $what"
    read -rt 0.2 <> <(:) || true
  done
}

size() { podman image inspect --format '{{.Size}}' "$1"; }
added=$(($(size "$image") - $(size docker.io/library/debian:bookworm-slim)))
[ $added -le $most_added ] || fail "the image adds $added bytes to its base, more than $most_added"

said() { podman image inspect --format "{{$1}}" "$image"; }
[ "$(said .Config.User)" = 65532:65532 ] || fail "it runs as root"
[ "$(said .Config.StopSignal)" = SIGTERM ] || fail "it is stopped by another signal"
for label in title description licenses revision; do
  [ -n "$(said "index .Config.Labels \"org.opencontainers.image.$label\"")" ] || fail "no label $label"
done
container version --rm "$image" --version | grep -q '^sparkferry ' || fail "no version"

# The sandbox takes a free port and says which.
background sandbox "$image" sandbox --listen 127.0.0.1:0 --token sandbox
says_where() { podman logs "$namespace-sandbox" 2>/dev/null | grep -q 'serves on'; }
await 30 "the sandbox says where it is" says_where
host=$(podman logs "$namespace-sandbox" | sed -n 's/.*serves on //p')

printf '%s\n' "$url" >"$folder/queue-url"
printf 'sandbox\n' >"$folder/token"
cp config/examples/sandbox.jsonl "$folder/"
cat >"$folder/agent.toml" <<EOF
default_connection = "prod"
[queue]
url_file = "/run/secrets/queue-url"
[connections.prod]
type = "databricks"
host = "$host"
auth = { type = "pat", token_file = "/run/secrets/token" }
EOF
# What the image's user may read; the folder itself goes away with the test.
chmod 755 "$folder"
chmod 644 "$folder"/*

# One network for all three here, so only the first has the port of the health check.
background worker-1 "$image" --config /run/secrets/agent.toml run
for n in 2 3; do
  background "worker-$n" --env SPARKFERRY__HTTP__LISTEN=127.0.0.1:0 "$image" --config /run/secrets/agent.toml run
done
inside() { podman --runtime crun exec "$namespace-worker-1" /bin/bash -c "$1"; }
await 60 "worker 1 is healthy" podman --runtime crun healthcheck run "$namespace-worker-1"
await 60 "worker 1 is ready" inside \
  "exec 3<>/dev/tcp/127.0.0.1/8790 && printf 'GET /readyz HTTP/1.0\r\n\r\n' >&3 && grep -q '200 OK' <&3"
inside '[ "$UID" = 65532 ] && ! echo x >/tmp/x && ! echo x >/x' 2>/dev/null || fail "it may write, or is somebody else"
inside 'grep -q "^CapEff:[[:space:]]*0*$" /proc/1/status' || fail "it has capabilities"

results=$(container producer --rm "$image" --config /run/secrets/agent.toml submit /run/secrets/sandbox.jsonl --wait --json) ||
  fail "the producer was not content: $results"
wanted=$(wc -l <config/examples/sandbox.jsonl)
got=$(grep -c '"outcome":"SUCCESS"' <<<"$results") || true
[ "$got" = "$wanted" ] || fail "$got of $wanted examples succeeded: $results"

# SIGTERM reaches the program: exit code 0, well before anybody loses patience.
for n in 1 2 3; do
  podman stop --time 15 "$namespace-worker-$n" >/dev/null
  code=$(podman inspect --format '{{.State.ExitCode}}' "$namespace-worker-$n")
  [ "$code" = 0 ] || fail "worker $n exited with $code"
done
echo "the image adds $((added / 1000)) kB to its base; $got examples ran on three workers"
