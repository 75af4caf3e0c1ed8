#!/bin/sh
# Makes this machine a node of a burla cluster, or undoes it. `burla up` and `burla nodes add` run these very
# functions over SSH, one after the other; an administrator can run them by hand:
#
#   sh bootstrap.sh up --scheduler ADDRESS --wheel burla-0.1.0-py3-none-any.whl [--join-token-file -] < token
#   sh bootstrap.sh remove
#
# All of it lies in one folder, ~/.burla/CLUSTER (--directory), but for a systemd unit where there is systemd.
# Every function can be run again, also after it was cut off in the middle. Nothing is downloaded but
# by pip, and that not at all with --wheelhouse.
set -eu
umask 077
LC_ALL=C PYTHONDONTWRITEBYTECODE=1
export LC_ALL PYTHONDONTWRITEBYTECODE
unset PYTHONPATH PYTHONHOME PYTHONSTARTUP || :

CLUSTER=default NAME=$(uname -n) PYTHON=3.11 WAIT_S=60 SILENCE_S=600
DIRECTORY='' SCHEDULER='' WHEEL='' WHEELHOUSE='' INDEX='' CPUS='' RAM='' SERVICE='' TOKEN='' INSTALLED=by-hand
SETTINGS=by-hand THEN='poweroff'
STOP_S=20         # a nodelet ends within 8 s of SIGTERM; then it is killed
LOG_KB=4096       # node.log is begun anew at a restart if it is longer
BACKOFF_MAX_S=30  # a nodelet that ends by itself is started again after 1, 2, 4 ... s

fail() { echo "burla: $*" >&2; exit 1; }

options() {
    while [ $# -gt 0 ]; do
        [ $# -ge 2 ] || fail "$1 needs a value"
        case $1 in
            --cluster) CLUSTER=$2 ;; --name) NAME=$2 ;; --python) PYTHON=$2 ;; --directory) DIRECTORY=$2 ;;
            --scheduler) SCHEDULER=$2 ;; --wheel) WHEEL=$2 ;; --wheelhouse) WHEELHOUSE=$2 ;; --index) INDEX=$2 ;;
            --cpus) CPUS=$2 ;; --ram) RAM=$2 ;; --service) SERVICE=$2 ;; --join-token-file) TOKEN=$2 ;;
            --installed) INSTALLED=$2 ;; --settings) SETTINGS=$2 ;; --wait) WAIT_S=$2 ;;
            --silence) SILENCE_S=$2 ;; --then) THEN=$2 ;;
            *) fail "unknown option $1" ;;
        esac
        shift 2
    done
    [ -n "$DIRECTORY" ] || DIRECTORY=$HOME/.burla/$CLUSTER
    [ -n "$SERVICE" ] || SERVICE=$(service_kind)
    UNIT=burla-node-$CLUSTER.service
    UNIT_FILE=/etc/systemd/system/$UNIT
}

# --- what there is ---

service_kind() { # systemd is used where it runs and we are root; elsewhere a supervised process
    if [ -d /run/systemd/system ] && [ "$(id -u)" = 0 ]; then echo systemd; else echo process; fi
}

pythons() { # every Python 3 that can be found, the likely ones first
    { command -v "python$PYTHON" || :; command -v python3 || :; command -v python || :
      for file in /usr/local/bin/python3* /opt/*/bin/python3* "$HOME"/.local/bin/python3* \
                  "$HOME"/.pyenv/versions/*/bin/python3; do
          case $file in *-config | *'*'*) ;; *) [ ! -x "$file" ] || echo "$file" ;; esac
      done; } | awk '!seen[$0]++'
}

about() { # prints "3.11 venv PIPWHEEL" of one Python: its minor, whether it makes environments, where its pip lies
    "$1" -I -c '
import sys
words = ["%d.%d" % sys.version_info[:2], "venv", ""]
try:
    import venv
except ImportError:
    words[1] = "bare"
try:
    import ensurepip, glob, os, sysconfig
    places = [os.path.join(os.path.dirname(ensurepip.__file__), "_bundled")]
    places.append(sysconfig.get_config_var("WHEEL_PKG_DIR") or "/usr/share/python-wheels")
    words[2] = ([f for p in places for f in glob.glob(os.path.join(p, "pip-*.whl"))] + [""])[0]
except (ImportError, TypeError): # Debian has it in a package of its own
    pass
print(" ".join(words))' 2>/dev/null || :
}

find_python() { # sets BASE and PIP to a Python of the wanted minor that can make environments; FOUND to all others
    BASE='' PIP='' FOUND='' LAME=''
    for file in $(pythons); do
        set -- $(about "$file")
        [ $# -ge 2 ] || continue
        if [ "$1" != "$PYTHON" ]; then FOUND="$FOUND$1 at $file, "
        elif [ "$2" != venv ] || [ -z "${3-}" ]; then LAME=$file
        else BASE=$file PIP=$3; return
        fi
    done
}

free_kb() { # of the file system that DIRECTORY is or will be on
    place=$DIRECTORY
    while [ ! -d "$place" ]; do place=$(dirname "$place"); done
    df -Pk "$place" | awk 'NR == 2 { print $4 }'
}

started() { sed 's/.*) //' "/proc/$1/stat" 2>/dev/null | awk '$1 != "Z" { print $20 }'; } # of a process, in ticks

supervisor() { # prints the process id of the supervisor, or of systemd's main process, if it lives
    if [ "$SERVICE" = systemd ]; then
        pid=$(systemctl show --property MainPID --value "$UNIT" 2>/dev/null || echo 0)
        [ "${pid:-0}" = 0 ] || echo "$pid"
    elif [ -f "$DIRECTORY/pid" ]; then
        read -r pid start < "$DIRECTORY/pid" || return 0
        [ "$(started "$pid")" != "$start" ] || echo "$pid"
    fi
}

stamp() { cat "$DIRECTORY/$1" 2>/dev/null || :; }

age_s() { echo $(($(date +%s) - $(stat -c %Y "$1" 2>/dev/null || echo 0))); }

facts() {
    find_python
    echo "burla-facts 1"
    echo "python $BASE"
    echo "without-venv $LAME"
    echo "others ${FOUND%, }"
    echo "free_kb $(free_kb)"
    echo "service $SERVICE"
    echo "machine $(uname -s) $(uname -m)"
    [ -e "$DIRECTORY/building" ] || echo "venv $(stamp venv/complete)"
    echo "installed $(stamp installed)"
    echo "settings $(stamp settings)"
    echo "version $("$DIRECTORY/venv/bin/python" -I -c 'import burla.protocol; print(burla.protocol.VERSION)' 2>/dev/null || :)"
    echo "running $(if [ -n "$(supervisor)" ]; then stamp running; fi)"
    [ ! -f "$DIRECTORY/ready" ] || echo "ready_s $(age_s "$DIRECTORY/ready")"
    for file in "$DIRECTORY"/wheels/*.whl; do
        [ ! -f "$file" ] || echo "wheel $(sha256sum < "$file" | cut -d' ' -f1) ${file##*/}"
    done
    [ ! -e "$DIRECTORY" ] || echo "there yes"
    echo "burla-facts end"
}

# --- making it a node ---

ship() { # a tar of wheels on stdin
    rm -rf "$DIRECTORY/incoming"
    mkdir -p "$DIRECTORY/incoming" "$DIRECTORY/wheels"
    tar -xf - -C "$DIRECTORY/incoming" -o
    (cd "$DIRECTORY/incoming" && sha256sum --quiet -c SHA256SUMS)
    mv "$DIRECTORY"/incoming/*.whl "$DIRECTORY/wheels/"
    rm -rf "$DIRECTORY/incoming"
}

venv() {
    find_python
    [ -n "$BASE" ] || fail "no Python $PYTHON that can make environments; found: ${FOUND%, }"
    mkdir -p "$DIRECTORY"
    : > "$DIRECTORY/building"
    rm -rf "$DIRECTORY/venv" "$DIRECTORY/installed"
    "$BASE" -I -m venv --without-pip "$DIRECTORY/venv"
    echo "$PYTHON" > "$DIRECTORY/venv/complete"
    rm "$DIRECTORY/building"
}

install() { # what is half installed is thrown away by making the environment anew
    find_python
    : > "$DIRECTORY/building"
    [ -n "$PIP" ] || fail "Python $PYTHON has no pip to install with; on Debian: apt-get install python$PYTHON-venv"
    mkdir -p "$DIRECTORY/tmp"
    # Modules are compiled when they are first imported, into the environment; all at once takes twice as long.
    set -- install --quiet --no-compile --no-cache-dir --disable-pip-version-check --no-input
    home=$DIRECTORY/tmp # else pip asks every rustc and the like about itself, which leave things behind
    if [ -n "$WHEELHOUSE" ]; then set -- "$@" --isolated --no-index --find-links "$WHEELHOUSE"
    elif [ -n "$INDEX" ]; then
        set -- "$@" --isolated --index-url "$INDEX"
        case $INDEX in http://*) set -- "$@" --trusted-host "$(host_of "$INDEX")" ;; esac # as its user said
    else home=$HOME # its settings say which index
    fi
    said=$(HOME=$home TMPDIR=$DIRECTORY/tmp PYTHONPATH=$PIP \
        "$DIRECTORY/venv/bin/python" -m pip "$@" "$WHEEL" 2>&1) || failed_pip "$said"
    rm -rf "$DIRECTORY/tmp"
    echo "$INSTALLED" > "$DIRECTORY/installed.new"
    mv "$DIRECTORY/installed.new" "$DIRECTORY/installed"
    rm "$DIRECTORY/building"
}

failed_pip() { # of many tries to reach an index one is enough to see why
    echo "$1" | awk '/^WARNING: Retrying/ && seen++ { next } 1' >&2
    case $1 in
        *'No matching distribution'* | *'Could not find a version'*)
            [ -n "$WHEELHOUSE" ] || fail "pip finds no package index, or the index lacks what burla needs; for machines without an" \
                "index, \`--wheelhouse auto\` (wheelhouse = \"auto\") downloads the wheels on your side and ships them"
            fail "the wheelhouse lacks the packages named above, for Python $PYTHON on $(uname -m)" ;;
    esac
    fail "pip could not install burla"
}

host_of() { echo "$1" | sed 's|^[a-z]*://||; s|/.*||; s|.*@||; s|:[0-9]*$||'; }

quote() { printf "'%s'" "$(printf %s "$1" | sed "s/'/'\\\\''/g")"; }

service() { # node.sh runs the nodelet; who runs node.sh is systemd, or `bootstrap.sh supervise`
    { echo '#!/bin/sh'
      if [ -n "$TOKEN" ]; then # needed until its key is known
          printf 'set -- --key-file %s\n' "$(quote "$DIRECTORY/node.key")"
          printf '[ ! -f %s ] || set -- "$@" --join-token-file %s\n' \
              "$(quote "$DIRECTORY/token")" "$(quote "$DIRECTORY/token")"
      fi
      printf 'exec %s' "$(quote "$DIRECTORY/venv/bin/burla-nodelet")"
      printf ' --scheduler %s --name %s' "$(quote "$SCHEDULER")" "$(quote "$NAME")"
      printf ' --ready-file %s' "$(quote "$DIRECTORY/ready")"
      [ -z "$CPUS" ] || printf ' --cpus %s' "$(quote "$CPUS")"
      [ -z "$RAM" ] || printf ' --ram %s' "$(quote "$RAM")"
      echo ' "$@"'; } > "$DIRECTORY/node.sh"
    if [ -n "${BURLA_SCRIPT-}" ]; then printf '%s\n' "$BURLA_SCRIPT" > "$DIRECTORY/bootstrap.new"
    else cat "$0" > "$DIRECTORY/bootstrap.new" # it may be the very file that is replaced
    fi
    mv "$DIRECTORY/bootstrap.new" "$DIRECTORY/bootstrap.sh"
    if [ "$SERVICE" = systemd ]; then
        unit > "$UNIT_FILE.new"
        chmod 644 "$UNIT_FILE.new"
        mv "$UNIT_FILE.new" "$UNIT_FILE"
        systemctl daemon-reload
    fi
    echo "$SETTINGS" > "$DIRECTORY/settings.new"
    mv "$DIRECTORY/settings.new" "$DIRECTORY/settings"
}

unit() {
    cat <<END
[Unit]
Description=burla node of cluster $CLUSTER
Wants=network-online.target
After=network-online.target

[Service]
ExecStart=/bin/sh $DIRECTORY/node.sh
SyslogIdentifier=burla-nodelet
WorkingDirectory=$DIRECTORY
UMask=0077
Restart=on-failure
RestartSec=5
# The nodelet ends its workers itself; whatever is left after that is killed.
KillMode=mixed
TimeoutStopSec=$STOP_S
# A worker that is killed for memory is the nodelet's business.
OOMPolicy=continue
Delegate=yes

[Install]
WantedBy=multi-user.target
END
}

start() { # a join token, if there is one, comes on stdin: never on a command line, gone when it was used
    stop
    rm -f "$DIRECTORY/ready"
    [ "$TOKEN" != - ] || cat > "$DIRECTORY/token"
    echo "$(stamp installed) $(stamp settings)" > "$DIRECTORY/running"
    if [ "$SERVICE" = systemd ]; then systemctl enable --quiet --now "$UNIT"
    else
        detach=setsid
        command -v setsid > /dev/null || detach=nohup
        $detach sh "$DIRECTORY/bootstrap.sh" supervise --directory "$DIRECTORY" --service process \
            < /dev/null >> "$DIRECTORY/node.log" 2>&1 &
    fi
}

supervise() { # the background process where there is no systemd: starts the nodelet again if it fails
    unset LC_ALL PYTHONDONTWRITEBYTECODE # ours, and not for the calls that will run here
    self=$$ pause_s=1 child=''
    trap 'trap "" TERM; [ -z "$child" ] || { kill -TERM "$child" && wait "$child"; } || :; rm -f "$DIRECTORY/pid"; exit 0' TERM
    trap '[ -z "$child" ] || kill -USR1 "$child" || :' USR1
    trap '' HUP
    echo "$self $(started "$self")" > "$DIRECTORY/pid.new"
    mv "$DIRECTORY/pid.new" "$DIRECTORY/pid"
    cd /
    while :; do
        [ "$(du -k "$DIRECTORY/node.log" | cut -f1)" -le "$LOG_KB" ] || : > "$DIRECTORY/node.log"
        began_s=$(date +%s)
        sh "$DIRECTORY/node.sh" &
        child=$!
        while :; do # a signal ends a wait before the child has ended
            status=0; wait "$child" || status=$?
            [ "$status" -gt 128 ] && kill -0 "$child" 2>/dev/null || break
        done
        [ "$status" != 0 ] || break
        echo "burla: the nodelet ended with status $status; starting it again in $pause_s s"
        [ $(($(date +%s) - began_s)) -lt 60 ] || pause_s=1
        child=''
        sleep "$pause_s" & wait $! || :
        pause_s=$((pause_s * 2)); [ "$pause_s" -le "$BACKOFF_MAX_S" ] || pause_s=$BACKOFF_MAX_S
    done
    rm -f "$DIRECTORY/pid"
}

hello() { # waits until the scheduler has welcomed this node
    until_s=$(($(date +%s) + WAIT_S))
    while [ ! -f "$DIRECTORY/ready" ]; do
        if [ "$(date +%s)" -ge "$until_s" ]; then
            log_tail >&2
            fail "the scheduler at ${SCHEDULER:-the address given} did not answer within $WAIT_S s;" \
                "if $(uname -n) cannot reach that address, open its port or set \`scheduler\` to one that it can reach"
        fi
        sleep 0.1
    done
    rm -f "$DIRECTORY/token"
}

log_tail() {
    if [ "$SERVICE" = systemd ]; then journalctl --no-pager -q -n 5 -o cat -u "$UNIT" || :
    else tail -n 5 "$DIRECTORY/node.log" || :
    fi
}

up() { # all of it, by hand
    [ -n "$SCHEDULER" ] || fail "up needs --scheduler ADDRESS"
    [ -f "$WHEEL" ] || fail "up needs --wheel FILE, the wheel of burla"
    mkdir -p "$DIRECTORY"
    INSTALLED="$PYTHON $(sha256sum < "$WHEEL" | cut -d' ' -f1)"
    [ "$(stamp installed)" = "$INSTALLED" ] || { venv; install; }
    service
    start
    hello
    echo "$NAME is a node of $SCHEDULER"
}

# --- undoing it ---

wait_ended() { # process id, seconds: returns whether it has ended by then
    until_s=$(($(date +%s) + $2))
    while [ -n "$(started "$1")" ]; do
        [ "$(date +%s)" -lt "$until_s" ] || return 1
        sleep 0.1
    done
}

stop() {
    pid=$(supervisor)
    if [ "$SERVICE" = systemd ] && [ -f "$UNIT_FILE" ]; then systemctl disable --quiet --now "$UNIT"
    elif [ -n "$pid" ]; then
        kill -TERM "$pid" || :
        wait_ended "$pid" "$STOP_S" || kill -KILL "-$pid" "$pid" || :
    fi
    rm -f "$DIRECTORY/running" "$DIRECTORY/ready" "$DIRECTORY/token" "$DIRECTORY/pid"
}

drain() { # the nodelet finishes what runs, takes nothing more, and ends
    pid=$(supervisor)
    [ -n "$pid" ] || return 0
    if [ "$SERVICE" = systemd ]; then systemctl kill --kill-who=main --signal=USR1 "$UNIT"
    else kill -USR1 "$pid"
    fi
    wait_ended "$pid" "$WAIT_S" || fail "calls still run after $WAIT_S s; remove the node to cut them off"
    stop
}

remove() {
    stop
    if [ "$SERVICE" = systemd ] && [ -f "$UNIT_FILE" ]; then
        rm -f "$UNIT_FILE" "$UNIT_FILE.new"
        systemctl daemon-reload
    fi
    rm -rf "$DIRECTORY"
    rmdir "$HOME/.burla" 2>/dev/null || :
    rmdir /run/burla 2>/dev/null || : # of the nodelet's user ids; in use, if another one has any
}

deadman() { # for machines that cost money: when the scheduler has been silent for SILENCE_S, do THEN
    began_s=$(date +%s)
    while :; do
        silent_s=$(age_s "$DIRECTORY/ready")
        alive_s=$(($(date +%s) - began_s))
        [ "$silent_s" -le "$alive_s" ] || silent_s=$alive_s
        if [ "$silent_s" -ge "$SILENCE_S" ]; then
            echo "burla: no word from the scheduler for $silent_s s: $THEN"
            sh -c "$THEN"
            exit 0
        fi
        sleep $((SILENCE_S < 40 ? 1 : 10))
    done
}

# --- one at a time ---

alone() { # a run that was cut off may still be at work here: wait for it
    mkdir -p "$DIRECTORY"
    if command -v flock > /dev/null; then
        exec 9> "$DIRECTORY/lock"
        flock -w 300 9 || fail "another bootstrap has been running here for 300 s"
    fi
    "$1" 9>&-
}

command=${1-help}
[ $# -eq 0 ] || shift
options "$@"
case $command in
    facts | hello | supervise | deadman | unit) $command ;;
    ship | venv | install | service | start | up) alone $command ;;
    stop | drain | remove) # a unit may be left of a folder that somebody has deleted
        [ ! -d "$DIRECTORY" ] && [ ! -f "$UNIT_FILE" ] || alone $command ;;
    *) sed -n '2,10s/^# \{0,1\}//p' "$0"; exit 2 ;;
esac
