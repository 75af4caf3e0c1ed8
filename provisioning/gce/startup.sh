#!/bin/sh
# Startup script of a virtual machine of Compute Engine: makes it a node, and ends it when it is no longer needed.
# All it is told comes from the instance's metadata; it has no service account and no secret but a join
# token that is good for one use. Runs at every boot.
set -eu
umask 077
server=http://${GCE_METADATA_HOST:-metadata.google.internal}/computeMetadata/v1/instance
HOME=${BURLA_HOME:-/root}
export HOME
directory=$HOME/.burla/vm

get() { curl -sf --retry 5 -H 'Metadata-Flavor: Google' "$server/$1"; }
attribute() { get "attributes/burla-$1" || :; }
say() { curl -sf --retry 5 -X PUT -H 'Metadata-Flavor: Google' --data "$*" "$server/guest-attributes/burla/state" || :; }

mkdir -p "$directory"
get attributes/burla-bootstrap > "$directory/bootstrap.sh"

# First of all what ends this machine: whatever goes wrong below, it does not stand around. A machine whose
# scheduler is silent powers itself off; Compute Engine deletes it at the end of its run duration at the latest.
setsid sh "$directory/bootstrap.sh" deadman --directory "$directory" --silence "$(attribute silence)" \
    --then "$(attribute then)" < /dev/null > "$directory/deadman.log" 2>&1 &

# A preemption is announced 30 s ahead; `burla nodes drain` says by an attribute in how many seconds. What runs
# is finished, as far as there is time.
changed() { get "$1?wait_for_change=true&timeout_sec=60" || sleep 1; }
drain() {
    say draining
    # What runs for longer goes on, and the node ends after it; until then the machine is needed.
    until sh "$directory/bootstrap.sh" drain --directory "$directory" --wait "$1"; do sleep 1; done
    say drained
}
watch_preempted() {
    until [ "$(changed preempted)" = TRUE ]; do :; done
    drain 25
}
watch_drain() {
    while :; do
        seconds=$(changed attributes/burla-drain)
        case $seconds in *[!0-9]* | "") ;; *) break ;; esac
    done
    drain "$seconds"
}
watch_preempted < /dev/null > /dev/null 2>&1 &
watch_drain < /dev/null > /dev/null 2>&1 &

say installing
for part in $(attribute wheel-parts); do attribute "wheel-$part"; done | python3 -I -c '
import base64, lzma, sys
sys.stdout.buffer.write(lzma.decompress(base64.b85decode(sys.stdin.buffer.read())))' > "$directory/$(attribute wheel-name)"
python=$(attribute python)
if ! "python$python" -I -c 'import ensurepip, venv' 2>/dev/null && command -v apt-get > /dev/null; then
    { apt-get update && apt-get install -y "python$python-venv"; } > "$directory/apt.log" 2>&1 || :
fi
set -- --directory "$directory" --name "$(attribute name)" --cluster "$(attribute cluster)" --python "$python" \
    --scheduler "$(attribute scheduler)" --wheel "$directory/$(attribute wheel-name)"
wheelhouse=$(attribute wheelhouse)
[ -z "$wheelhouse" ] || set -- "$@" --wheelhouse "$wheelhouse"
index=$(attribute index)
[ -z "$index" ] || set -- "$@" --index "$index"
attribute requirements > "$directory/requirements.txt"
[ ! -s "$directory/requirements.txt" ] || set -- "$@" --requirements "$directory/requirements.txt"
attribute packages > "$directory/given.txt"
[ ! -s "$directory/given.txt" ] || set -- "$@" --packages "$directory/given.txt"
level=$(attribute log-level)
[ -z "$level" ] || set -- "$@" --log-level "$level"
if [ -n "$(attribute token)" ]; then set -- "$@" --join-token-file -; fi
if attribute token | sh "$directory/bootstrap.sh" up "$@" > "$directory/up.log" 2>&1; then say ready
else say "failed $(tail -n 3 "$directory/up.log" | tr '\n' ' ')"
fi
