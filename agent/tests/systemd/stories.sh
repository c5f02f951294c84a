#!/usr/bin/env bash
# What a real systemd and the package must do together. Runs inside, as root; see boot.sh.
# The queue is the service's own database, the workspace a sandbox: there is no network.
set -Eeuo pipefail

readonly SERVICE=sparkferry.service
readonly CONFIGURATION=/etc/sparkferry/agent.toml
readonly TOKEN=dapi-canary-4711
readonly PATIENCE=60

trap 'failed "$LINENO" "$BASH_COMMAND"' ERR

failed() {
  echo "FAILED in line $1: $2"
  systemctl status --no-pager --full "$SERVICE" 'sparkferry@*' || true
  journalctl --no-pager --output=short-monotonic --priority=notice --lines=60
  journalctl --no-pager --unit=small --output=cat --lines=20
}

# fails COMMAND...: a `!` before it would not end the script.
fails() { if "$@"; then return 1; fi; }

story() { echo "story: $*"; }

# until_true WHAT COMMAND...: looks again and again until the command succeeds.
until_true() {
  local what=$1 end=$((SECONDS + PATIENCE))
  shift
  until "$@"; do
    if ((SECONDS > end)); then
      echo "waited $PATIENCE s in vain for $what"
      return 1
    fi
    sleep 0.1
  done
}

shown() { systemctl show --property="$1" --value "${2:-$SERVICE}"; }
status_has() { [[ $(shown StatusText "${2:-$SERVICE}") == *"$1"* ]]; }
status_lacks() { [[ $(shown StatusText) != *"$1"* ]]; }
is() { [ "$(shown "$1")" = "$2" ]; }
isnt() { [ "$(shown "$1")" != "$2" ]; }

# journal_has TEXT [OPTION]: in the service's lines. By way of a file: grep stops reading when it has it.
journal_has() {
  journalctl --unit="$SERVICE" --output=cat ${2:+"$2"} >/tmp/lines
  grep -q "$1" /tmp/lines
}

# get PORT PATH: a page, with the token.
get() {
  exec 3<>"/dev/tcp/127.0.0.1/$1"
  printf 'GET %s HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer %s\r\nConnection: close\r\n\r\n' "$2" "$TOKEN" >&3
  cat <&3
  exec 3<&-
}

# book NAME: a number in the sandbox's books.
book() { get 8765 /sandbox/stats | grep -o "\"$1\":[0-9]*" | cut -d: -f2; }
book_is() { [ "$(book "$1")" = "$2" ]; }

configure() {
  cat >"$CONFIGURATION.new" <<CONFIGURATION
[queue]
url = "sqlite:sparkferry.db"
[connections.prod]
type = "databricks"
host = "http://127.0.0.1:8765"
auth = { type = "pat", token_file = "\${CREDENTIALS_DIRECTORY}/secret_token" }
poll_interval_seconds = { min = 0.2, max = 1 }
${1:-}
CONFIGURATION
  mv "$CONFIGURATION.new" "$CONFIGURATION"
}

ours() {
  SPARKFERRY__QUEUE__URL=sqlite:/var/lib/sparkferry/sparkferry.db CREDENTIALS_DIRECTORY=/etc/sparkferry/secrets \
    sparkferry "$@"
}

# submit ID MILLISECONDS: one run, which is not awaited.
submit() {
  printf '{"id": "%s", "connection": "prod", "submit_run": {"run_name": "%s", "tasks": [{"task_key": "main",
    "existing_cluster_id": "c", "notebook_task": {"notebook_path": "/n",
    "base_parameters": {"sandbox.duration_ms": "%s"}}}]}}' "$1" "$1" "$2" >"/tmp/$1.json"
  ours submit "/tmp/$1.json"
}

# succeeded ID: submitted again it is the same work, whose result comes, by one run in all.
succeeded() {
  ours submit "/tmp/$1.json" --wait --json >"/tmp/$1.result"
  grep -q '"outcome":"SUCCESS"' "/tmp/$1.result"
  grep -q '"number":1' "/tmp/$1.result"
  fails grep -q '"number":2' "/tmp/$1.result"
}

story "the package is installed: nothing runs yet, and the units are sound"
dpkg --install /story/sparkferry.deb >/dev/null
is ActiveState inactive
[ "$(systemctl is-enabled "$SERVICE" || true)" = disabled ]
[ "$(stat -c %a:%U /etc/sparkferry/secrets)" = 700:root ]
sparkferry --version | grep -q "^sparkferry [0-9]"
for unit in sparkferry.service sparkferry@.service; do
  said=$(systemd-analyze verify --man=no "/lib/systemd/system/$unit" 2>&1 || echo "not sound")
  # An unknown setting is said and is no error.
  [ -z "$said" ] || { echo "$said" && false; }
  systemd-analyze security --offline=yes --threshold=15 "/lib/systemd/system/$unit" >/dev/null
done

story "without a connection it says what is missing, and is not started again and again"
fails systemctl start "$SERVICE" 2>/dev/null
is ExecMainStatus 78
is NRestarts 0
journal_has "no connection is configured"

story "a request waits for a secret that is missing"
configure
systemctl reset-failed "$SERVICE"
systemd-run --quiet --unit=sandbox sparkferry sandbox --token "$TOKEN"
until_true "the sandbox" get 8765 /sandbox/stats >/dev/null 2>&1
systemctl start "$SERVICE"
submit early 100
until_true "the request" status_has "1 request under way"
missing="auth.token_file: the secret's file /run/credentials/$SERVICE/secret_token can't be read"
until_true "what is missing" status_has "prod: $missing"
get 8790 /readyz >/tmp/readyz
grep -q '^HTTP/1.1 503' /tmp/readyz
grep -qF "\"prod\":\"$missing" /tmp/readyz
book_is runs_started 0
systemctl stop "$SERVICE"

story "it is ready when its loops turn, and says so"
install -m 600 /dev/stdin /etc/sparkferry/secrets/token <<<"$TOKEN"
systemctl start "$SERVICE"
is ActiveState active
status_has "1 connection"
succeeded early
until_true "the end" is StatusText "0 requests under way, 1 connection"
get 8790 /readyz | grep -q '"ready":true'

story "the journal has each event once, with its fields"
journalctl --unit="$SERVICE" --output=json --boot >/tmp/journal
[ "$(grep -c '"MESSAGE":"serving ' /tmp/journal)" = 2 ] # once for each of its two starts
grep '"MESSAGE":"working"' /tmp/journal | grep -q '"SPARKFERRY_NAMESPACE":"sparkferry"'
grep '"MESSAGE":"working"' /tmp/journal | grep -q '"SYSLOG_IDENTIFIER":"sparkferry"'

story "its credentials are its own, and stand nowhere else"
pid=$(shown MainPID)
credential=/run/credentials/$SERVICE/secret_token
user=$(awk '/^Uid:/ { print $2 }' "/proc/$pid/status")
((user >= 61184 && user <= 65519)) # systemd's own range for users that come and go
[ "$(setpriv --reuid="$user" --clear-groups cat "$credential")" = "$TOKEN" ]
fails setpriv --reuid=nobody --clear-groups cat "$credential" 2>/dev/null
fails setpriv --reuid=nobody --clear-groups ls /etc/sparkferry/secrets /var/lib/private/sparkferry 2>/dev/null
fails grep -q "$TOKEN" "/proc/$pid/environ" "/proc/$pid/cmdline" "$CONFIGURATION"

story "a run goes on while the configuration is read again: its connection is changed, another comes"
submit reloaded 6000
until_true "the run" book_is runs_started 2
until_true "the status" status_has "1 request under way"
configure 'max_active_runs = 7
[log]
level = "debug"
[connections.test]
type = "databricks"
host = "http://127.0.0.1:8765"
auth = { type = "pat", token_file = "${CREDENTIALS_DIRECTORY}/secret_token" }'
systemctl reload "$SERVICE"
until_true "two connections" status_has "2 connections"
is MainPID "$pid"
succeeded reloaded
book_is runs_started 2
# What is `debug` here has the journal's priority `info`.
until_true "lines of the level debug" journal_has . --priority=info..info

story "a wrong configuration is refused, the old one stays, and that is seen"
echo 'host = "half a line' >>"$CONFIGURATION"
systemctl reload "$SERVICE"
until_true "the refusal" status_has "configuration refused"
get 8790 /readyz | grep -q '"configuration":"the configuration file'
get 8790 /readyz | grep -q '"ready":true'
configure '[http]
listen = "127.0.0.1:8791"'
systemctl reload "$SERVICE"
until_true "the refusal" status_has "needs a restart: http"
status_has "2 connections"
submit refused 100
succeeded refused
configure
systemctl reload "$SERVICE"
until_true "one connection, nothing refused" is StatusText "0 requests under way, 1 connection"
is MainPID "$pid"
is NRestarts 0

story "frozen, it is killed by the watchdog and started again, and finds its run"
mkdir -p "/run/systemd/system/$SERVICE.d"
printf '[Service]\nWatchdogSec=4\n' >"/run/systemd/system/$SERVICE.d/quick.conf"
systemctl daemon-reload
systemctl restart "$SERVICE"
pid=$(shown MainPID)
submit frozen 12000
until_true "the run" book_is runs_started 4
kill -STOP "$pid"
until_true "another process" isnt MainPID "$pid"
until_true "its start" is ActiveState active
is NRestarts 1
journal_has "Watchdog timeout"
succeeded frozen
grep -q '"adopted":true' /tmp/frozen.result
book_is runs_started 4

story "stopped, it leaves its run alone, and finds it when it is started"
submit stopped 8000
until_true "the run" book_is runs_started 5
began=$SECONDS
systemctl stop "$SERVICE"
((SECONDS - began <= 12))
is Result success
book_is runs_active 1
systemctl start "$SERVICE"
succeeded stopped
book_is runs_started 5

story "one of several is ready though its broker is away, and says what it waits for"
install -d -m 700 /etc/sparkferry/lake/secrets
install -m 600 /dev/stdin /etc/sparkferry/lake/secrets/queue-url <<<"amqp://user:$TOKEN@127.0.0.1:1"
install -m 600 /dev/stdin /etc/sparkferry/lake/secrets/token <<<"$TOKEN"
cat >/etc/sparkferry/lake/agent.toml <<'CONFIGURATION'
[queue]
url_file = "${CREDENTIALS_DIRECTORY}/secret_queue-url"
[http]
listen = ""
[connections.lake]
type = "databricks"
host = "http://127.0.0.1:8765"
auth = { type = "pat", token_file = "${CREDENTIALS_DIRECTORY}/secret_token" }
CONFIGURATION
systemctl start sparkferry@lake
[ "$(pgrep --count --full "sparkferry --config")" = 2 ]
until_true "the trouble" status_has "queue: " sparkferry@lake
[ "$(shown ActiveState sparkferry@lake)" = active ]
[ "$(shown ActiveState)" = active ]

story "upgraded, it goes on as the new one with the configuration it had"
submit upgraded 6000
until_true "the run" book_is runs_started 6
pid=$(shown MainPID)
dpkg --install /story/sparkferry.deb >/dev/null 2>&1
until_true "another process" isnt MainPID "$pid"
is ActiveState active
succeeded upgraded
book_is runs_started 6
grep -q secret_token "$CONFIGURATION"

story "the disk of the queue is full: that is said, and with room again the result is there"
mkdir /run/small
mount -t tmpfs -o size=8m tmpfs /run/small
small=(SPARKFERRY__QUEUE__URL=sqlite:/run/small/queue.db SPARKFERRY__HTTP__LISTEN=127.0.0.1:8792
  CREDENTIALS_DIRECTORY="/run/credentials/$SERVICE")
systemd-run --quiet --unit=small "${small[@]/#/--setenv=}" sparkferry run
sed 's/upgraded/cramped/g' /tmp/upgraded.json >/tmp/cramped.json
until_true "the queue" env "${small[@]}" sparkferry submit /tmp/cramped.json
until_true "the run" book_is runs_started 7
head --bytes=8M /dev/zero >/run/small/filler 2>/dev/null || true
full() { get 8792 /readyz | grep -q '"queue":"[^"]*the disk is full'; }
until_true "the trouble" full
rm /run/small/filler
env "${small[@]}" sparkferry submit /tmp/cramped.json --wait --json >/tmp/cramped.result
grep -q '"outcome":"SUCCESS"' /tmp/cramped.result
book_is runs_started 7
get 8792 /readyz | grep -q '"queue":null'
systemctl stop small
umount /run/small

story "no secret is in the journal"
journalctl --output=json | grep -v sandbox.service >/tmp/journal
fails grep -q "$TOKEN" /tmp/journal

story "removed, nothing runs; purged, nothing is left"
dpkg --remove sparkferry >/dev/null 2>&1
fails pgrep --full "sparkferry --config"
[ -f "$CONFIGURATION" ]
dpkg --purge sparkferry >/dev/null 2>&1
for left in /etc/sparkferry /var/lib/sparkferry* /var/lib/private/sparkferry* /usr/lib/systemd/system/sparkferry*; do
  fails test -e "$left"
done

echo "all told"
