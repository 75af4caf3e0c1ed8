#!/bin/sh
# What runs in a pod of Kubernetes: makes it a node, lets it finish its calls when the pod is to end, and ends when
# nobody needs it. It lies beside bootstrap.sh and our wheel, and is told by its arguments: how many seconds the
# scheduler may be silent, the name of the wheel, the Python; and then the options of `bootstrap.sh up`.
# A pod has no rights in Kubernetes and no secret but a join token that is good for one use.
set -eu
umask 077
files=$(dirname "$0")
silence_s=$1 wheel=$2 python=$3
shift 3
directory=$HOME/node
log=$directory/node.log

bootstrap() { what=$1; shift; sh "$files/bootstrap.sh" "$what" --directory "$directory" --service process "$@"; }

ending='' # "told": by Kubernetes, which kills all of this at the end of the grace period; "silent": by nobody
trap 'ending=told' TERM INT
trap 'ending=silent' USR1

await() { # a child: returns how it ended; or 0, when this pod is to end first
    while :; do
        status=0; wait "$1" || status=$?
        [ -z "$ending" ] || return 0
        [ "$status" -gt 128 ] && kill -0 "$1" 2> /dev/null || return "$status"
    done
}

mkdir -p "$directory"
: >> "$log"
bootstrap deadman --silence "$silence_s" --then "kill -USR1 $$" > "$directory/deadman.log" 2>&1 &

python3 -I -c 'import lzma, sys
sys.stdout.buffer.write(lzma.decompress(sys.stdin.buffer.read()))' < "$files/wheel.xz" > "$directory/$wheel"
version=${wheel#burla-}
version=${version%%-*}
there=$(python3 -I -c 'import burla.protocol, sys
print(burla.protocol.VERSION, "%d.%d" % sys.version_info[:2])' 2> /dev/null || :)
if [ "$there" = "$version $python" ] && nodelet=$(command -v burla-nodelet); then # of the image
    mkdir -p "$directory/venv/bin"
    ln -sf "$nodelet" "$directory/venv/bin/burla-nodelet"
    echo "$python $(sha256sum < "$directory/$wheel" | cut -d' ' -f1)" > "$directory/installed" # as `up` has it
fi
set -- "$@" --python "$python" --wheel "$directory/$wheel"
[ ! -s "$files/requirements.txt" ] || set -- "$@" --requirements "$files/requirements.txt"
[ ! -s "$files/packages.txt" ] || set -- "$@" --packages "$files/packages.txt"
[ ! -s "$files/../token/index" ] || set -- "$@" --index "$(cat "$files/../token/index")"
token=$files/../token/token
if [ -s "$token" ]; then bootstrap up "$@" --join-token-file - < "$token" &
else bootstrap up "$@" < /dev/null &
fi
await $!
tail -n +1 -f "$log" & # for `kubectl logs`

is_node() { [ -f "$directory/pid" ] && read -r pid _ < "$directory/pid" && kill -0 "$pid" 2> /dev/null; }
while [ -z "$ending" ] && is_node; do sleep 1 & wait $! || :; done
case $ending in
    told) until bootstrap drain --wait 60; do :; done 2> /dev/null ;; # for as long as calls run
    silent) bootstrap stop ;;
    *) echo "burla: the nodelet ended by itself: $(tail -n 3 "$log")" >&2; exit 1 ;;
esac
