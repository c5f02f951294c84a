#!/usr/bin/env bash
# Runs docker/compose.yaml as it stands, by podman-compose: RabbitMQ, a sandbox, three workers, and the
# producer, whose examples must all succeed. RabbitMQ's public image can't be pulled here: Debian's
# package stands in for it. As root. TEST_IMAGE names an image of ours that is built already.
set -euo pipefail
cd "$(dirname "$0")/../../.."

readonly rabbitmq=docker.io/library/rabbitmq:4-management

if [ "${1:-}" != inside ]; then
  if [ -n "${TEST_IMAGE:-}" ]; then
    podman tag "$TEST_IMAGE" sparkferry
  else
    agent/tests/containers/image.sh sparkferry
  fi
  if ! podman image exists "$rabbitmq"; then
    tar=$(mktemp --suffix=.tar)
    mmdebstrap --quiet --variant=minbase --include=rabbitmq-server bookworm "$tar" \
      --customize-hook="copy-in $PWD/agent/tests/containers/rabbitmq.sh /"
    podman import --quiet --change 'ENTRYPOINT ["/bin/sh", "/rabbitmq.sh"]' \
      --change "ENV PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin" \
      --change "ENV RABBITMQ_NODENAME=rabbit@localhost" --change "ENV RABBITMQ_LOGS=-" \
      "$tar" "$rabbitmq" >&2
    rm -f "$tar"
  fi
  exec unshare --mount --propagation private "$0" inside
fi
umount /sys/fs/cgroup/unified 2>/dev/null || true

project=compose-$$
folder=$(mktemp -d)
log=$folder/log
tool=$(agent/tests/prepare.sh --where podman-compose)
readonly project folder log tool

# What podman needs where it is itself in a container.
cat >"$folder/containers.conf" <<'END'
[containers]
cgroups = "disabled"
default_ulimits = ["nofile=4096:4096", "nproc=4096:4096"]
[engine]
runtime = "crun"
END
export CONTAINERS_CONF=$folder/containers.conf

compose() { "$tool" --project-name "$project" --in-pod 0 --file docker/compose.yaml "$@"; }

fail() {
  echo "FAILED: $*" >&2
  cat "$log" >&2
  exit 1
}

cleanup() {
  compose down --volumes --timeout 0 >/dev/null 2>&1 || true
  rm -rf "$folder"
}
trap cleanup EXIT

healthy() { podman healthcheck run "${project}_$1_1" >/dev/null 2>&1; }

# One after the other: without systemd nobody but us runs the health checks that compose waits for.
compose up --no-build --detach rabbitmq sandbox >"$log" 2>&1 || fail "RabbitMQ and the sandbox do not start"
for ((second = 0; second < 90; second++)); do
  if healthy rabbitmq && healthy sandbox; then
    break
  fi
  sleep 1
done
healthy rabbitmq || fail "RabbitMQ is not healthy"
compose up --no-build --detach worker >"$log" 2>&1 || fail "the workers do not start"
compose up --no-build --no-deps --abort-on-container-exit --exit-code-from producer producer >"$log" 2>&1 ||
  fail "the producer is not content"

wanted=$(wc -l <config/examples/sandbox.jsonl)
got=$(grep -c '\] SUCCESS, ' "$log") || true
[ "$got" = "$wanted" ] || fail "$got of $wanted examples succeeded"
for n in 1 2 3; do
  podman stop --time 20 "${project}_worker_$n" >/dev/null 2>&1 || true
  code=$(podman inspect --format '{{.State.ExitCode}}' "${project}_worker_$n")
  [ "$code" = 0 ] || fail "worker $n exited with $code"
done
echo "compose: $got examples ran on three workers"
