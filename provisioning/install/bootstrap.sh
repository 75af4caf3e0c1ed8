#!/bin/sh
# Makes this machine a node of a burla cluster, or undoes it. `burla up` and `burla nodes add` run these very
# functions over SSH, one after the other; an administrator can run them by hand:
#
#   sh bootstrap.sh up --scheduler ADDRESS --wheel burla-0.1.0-py3-none-any.whl [--join-token-file -] < token
#                      [--requirements FILE] [--packages FILE]
#   sh bootstrap.sh remove
#
# All of it lies in one folder, ~/.burla/CLUSTER (--directory), but for a systemd unit where there is systemd.
# Every function can be run again, also after it was cut off in the middle. Nothing is downloaded but
# by pip, and that not at all with --wheelhouse.
set -eu
UMASK=${BURLA_UMASK:-$(umask)} # of whoever began this, also where this script has called itself
umask 077
LC_ALL=C PYTHONDONTWRITEBYTECODE=1
export LC_ALL PYTHONDONTWRITEBYTECODE
unset PYTHONPATH PYTHONHOME PYTHONSTARTUP || :

CLUSTER=default NAME='' PYTHON=3.11 WAIT_S=60 SILENCE_S=600
DIRECTORY='' SCHEDULER='' WHEEL='' WHEELHOUSE='' INDEX='' CPUS='' RAM='' SERVICE='' TOKEN='' INSTALLED=by-hand
SETTINGS=by-hand THEN='poweroff' PROGRAM=node LOG_LEVEL='' REQUIREMENTS='' PACKAGES='' GIVEN=by-hand
STOP_S=20         # a nodelet ends within 8 s of SIGTERM; then it is killed
LOG_KB=4096       # of a log file; what is longer is moved aside at a restart
BACKOFF_MAX_S=30  # a daemon that ends by itself is started again after 1, 2, 4 ... s

fail() { echo "burla: $*" >&2; exit 1; }

options() {
    while [ $# -gt 0 ]; do
        [ $# -ge 2 ] || fail "$1 needs a value"
        case $1 in
            --cluster) CLUSTER=$2 ;; --name) NAME=$2 ;; --python) PYTHON=$2 ;; --directory) DIRECTORY=$2 ;;
            --scheduler) SCHEDULER=$2 ;; --wheel) WHEEL=$2 ;; --wheelhouse) WHEELHOUSE=$2 ;; --index) INDEX=$2 ;;
            --cpus) CPUS=$2 ;; --ram) RAM=$2 ;; --service) SERVICE=$2 ;; --join-token-file) TOKEN=$2 ;;
            --installed) INSTALLED=$2 ;; --settings) SETTINGS=$2 ;; --wait) WAIT_S=$2 ;;
            --silence) SILENCE_S=$2 ;; --then) THEN=$2 ;; --program) PROGRAM=$2 ;; --log-level) LOG_LEVEL=$2 ;;
            --requirements) REQUIREMENTS=$2 ;; --packages) PACKAGES=$2 ;; --given) GIVEN=$2 ;;
            *) fail "unknown option $1" ;;
        esac
        shift 2
    done
    [ -n "$DIRECTORY" ] || DIRECTORY=$HOME/.burla/$CLUSTER
    [ -n "$SERVICE" ] || SERVICE=$(service_kind)
    UNIT=burla-$PROGRAM-$CLUSTER.service
    UNIT_FILE=/etc/systemd/system/$UNIT
    case $PROGRAM in # a machine is one node; a cluster's head has several daemons in one folder
        node) PID=$DIRECTORY/pid CHILD=$DIRECTORY/child READY=$DIRECTORY/ready LOCK=$DIRECTORY/lock ;;
        *) NAMED=$DIRECTORY/$PROGRAM; PID=$NAMED.pid CHILD=$NAMED.child READY=$NAMED.ready LOCK=$NAMED.lock ;;
    esac
    LOG=$DIRECTORY/$PROGRAM.log SERVED=$DIRECTORY/$PROGRAM.served
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

started() { # of a process that has not ended, in ticks; asked again and again, so no program is started for it
    { read -r line < "/proc/$1/stat"; } 2>/dev/null || return 0
    set -- ${line##*) }
    [ "${1-}" = Z ] || echo "${20-}"
}

supervisor() { # prints the process id of the supervisor, or of systemd's main process, if it lives
    if [ "$SERVICE" = systemd ]; then
        pid=$(systemctl show --property MainPID --value "$UNIT" 2>/dev/null || echo 0)
        [ "${pid:-0}" = 0 ] || echo "$pid"
    else living "$PID"
    fi
}

living() { # prints the process id in a file that holds it and its start, if that process lives
    [ -f "$1" ] || return 0
    read -r pid start < "$1" || return 0
    [ "$(started "$pid")" != "$start" ] || echo "$pid"
}

note() { # such a file, and a process id
    echo "$2 $(started "$2")" > "$1.new"
    mv "$1.new" "$1"
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
    echo "packages $(stamp given)"
    echo "settings $(stamp settings)"
    echo "version $("$DIRECTORY/venv/bin/python" -I -c 'import burla.protocol; print(burla.protocol.VERSION)' 2>/dev/null || :)"
    echo "running $(if [ -n "$(supervisor)" ]; then stamp running; fi)"
    [ ! -f "$READY" ] || echo "ready_s $(age_s "$READY")"
    [ ! -d "$DIRECTORY/wheels" ] || wheels
    [ ! -e "$DIRECTORY" ] || echo "there yes"
    echo "burla-facts end"
}

wheels() ( # prints the digests of all, and their names
    cd "$DIRECTORY/wheels"
    sha256sum ./*.whl 2>/dev/null | sed 's|^\([0-9a-f]*\) [ *]\./|wheel \1 |'
)

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
    # Jobs have other user ids, and are shown this folder only, which has no secrets.
    (umask 022 && "$BASE" -I -m venv --without-pip "$DIRECTORY/venv")
    echo "$PYTHON" > "$DIRECTORY/venv/complete"
    rm "$DIRECTORY/building"
}

install() { # what is half installed is thrown away by making the environment anew
    mkdir -p "$DIRECTORY/tmp"
    case $REQUIREMENTS in # first of all, while stdin is untouched
        '') ;; -) requirements ;; *) requirements < "$REQUIREMENTS" ;;
    esac
    find_python
    : > "$DIRECTORY/building"
    [ -n "$PIP" ] || fail "Python $PYTHON has no pip to install with; on Debian: apt-get install python$PYTHON-venv"
    # Modules are compiled when they are first imported, into the environment; all at once takes twice as long.
    set -- install --quiet --no-compile --no-cache-dir --disable-pip-version-check --no-input
    home=$DIRECTORY/tmp # else pip asks every rustc and the like about itself, which leave things behind
    if [ -n "$WHEELHOUSE" ]; then set -- "$@" --isolated --no-index --find-links "$WHEELHOUSE"
    elif [ -n "$INDEX" ]; then
        set -- "$@" --isolated --index-url "$INDEX"
        case $INDEX in http://*) set -- "$@" --trusted-host "$(host_of "$INDEX")" ;; esac # as its user said
    else home=$HOME # its settings say which index
    fi
    if [ -z "$REQUIREMENTS" ]; then set -- "$@" "$WHEEL"
    else
        set -- "$@" -r "$DIRECTORY/tmp/requirements.txt"
        # No source packages: what builds them would come without hashes.
        ! has_hashes || set -- "$@" --require-hashes --only-binary :all:
    fi
    shipped_uv || {
        said=$(umask 022 && HOME=$home TMPDIR=$DIRECTORY/tmp PYTHONPATH=$PIP \
            "$DIRECTORY/venv/bin/python" -m pip "$@" 2>&1) || failed_pip "$said"
    }
    rm -rf "$DIRECTORY/tmp"
    echo "$INSTALLED" > "$DIRECTORY/installed.new"
    mv "$DIRECTORY/installed.new" "$DIRECTORY/installed"
    rm "$DIRECTORY/building"
}

shipped_uv() { # installs with the uv of a wheelhouse, in a third of the time; if it cannot, pip says why
    [ -n "$WHEELHOUSE" ] || return 1
    uv=''
    for file in "$WHEELHOUSE"/uv-[0-9]*linux*_"$(uname -m)".whl; do
        [ ! -f "$file" ] || ! is_allowed "$file" || uv=$file
    done
    [ -n "$uv" ] || return 1
    set -- --no-build --no-index --find-links "$WHEELHOUSE"
    if [ -z "$REQUIREMENTS" ]; then set -- "$@" "$WHEEL"
    else
        set -- "$@" -r "$DIRECTORY/tmp/requirements.txt"
        ! has_hashes || set -- "$@" --require-hashes
    fi
    (umask 022
     "$BASE" -I -m zipfile -e "$uv" "$DIRECTORY/tmp/uv" || exit 1
     uv=$(echo "$DIRECTORY"/tmp/uv/uv-*.data/scripts/uv)
     chmod 755 "$uv" || exit 1
     env -i PATH="$PATH" HOME="$DIRECTORY/tmp" TMPDIR="$DIRECTORY/tmp" "$uv" --quiet --no-config --offline \
         --cache-dir "$DIRECTORY/tmp/cache" pip install --python "$DIRECTORY/venv/bin/python" --link-mode hardlink \
         "$@") > /dev/null 2>&1 && return
    rm -rf "$DIRECTORY/tmp/uv" "$DIRECTORY/tmp/cache" # the disk may be full
    return 1
}

has_hashes() { grep -q -e --hash= "$DIRECTORY/tmp/requirements.txt"; }

is_allowed() { # whether a wheel may run before it is installed: it is looked at as pip would look at it
    [ -n "$REQUIREMENTS" ] && has_hashes || return 0 # its folder is believed
    grep -q -e "--hash=sha256:$(sha256sum < "$1" | cut -d' ' -f1)" "$DIRECTORY/tmp/requirements.txt"
}

requirements() { # what may be installed, of stdin; the line of our own wheel gets the place that it has here
    place=$(readlink -f "$WHEEL" | sed 's/%/%25/g; s/ /%20/g; s/#/%23/g')
    while read -r name more; do
        [ "$name" != burla ] || name="burla @ file://$place"
        echo "$name $more"
    done > "$DIRECTORY/tmp/requirements.txt"
}

failed_pip() { # of many tries to reach an index one is enough to see why
    echo "$1" | awk '/^WARNING: Retrying/ && seen++ { next } 1' >&2
    case $1 in
        *'DO NOT MATCH THE HASHES'*)
            fail "what pip was sent is not what the cluster's head knows these packages to be: somebody has changed it, or" \
                "the index of this machine has builds of its own; then set \`index\` to that one, or wheelhouse = \"auto\"" ;;
        *'No matching distribution'* | *'Could not find a version'* | *'versions pinned with =='*)
            [ -n "$WHEELHOUSE" ] || fail "pip finds no package index, or the index lacks what burla needs (of the packages above, wheels for Python $PYTHON on $(uname -m)); for machines without an" \
                "index, \`--wheelhouse auto\` (wheelhouse = \"auto\") downloads the wheels on your side and ships them"
            fail "the wheelhouse lacks the packages named above, for Python $PYTHON on $(uname -m)" ;;
    esac
    fail "pip could not install burla"
}

packages() { # what all jobs are to find here, installed beside what runs: requirements, in a file or on stdin
    if [ "$PACKAGES" = - ]; then cat; else cat "$PACKAGES"; fi > "$DIRECTORY/packages.new"
    if [ -s "$DIRECTORY/packages.new" ]; then
        set -- --packages "$DIRECTORY/packages.new" --packages-directory "$DIRECTORY/packages"
        [ -z "$WHEELHOUSE" ] || set -- "$@" --wheelhouse "$WHEELHOUSE"
        [ -z "$INDEX" ] || set -- "$@" --index "$INDEX"
        said=$("$DIRECTORY/venv/bin/burla-nodelet" install "$@" 2>&1) || {
            rm "$DIRECTORY/packages.new"
            fail "$(echo "$said" | sed 's/^.*packages of this node: //')"
        }
        mv "$DIRECTORY/packages.new" "$DIRECTORY/packages.txt"
    else
        rm -f "$DIRECTORY/packages.new" "$DIRECTORY/packages.txt"
    fi
    echo "$GIVEN" > "$DIRECTORY/given.new"
    mv "$DIRECTORY/given.new" "$DIRECTORY/given"
}

host_of() { echo "$1" | sed 's|^[a-z]*://||; s|/.*||; s|.*@||; s|:[0-9]*$||'; }

quote() {
    case $1 in
        *\'*) printf "'%s'" "$(printf %s "$1" | sed "s/'/'\\\\''/g")" ;;
        *) printf "'%s'" "$1" ;;
    esac
}

service() { # node.sh runs the nodelet; who runs node.sh is systemd, or `bootstrap.sh supervise`
    [ -n "$NAME" ] || NAME=$(uname -n)
    { echo '#!/bin/sh'
      if [ -n "$TOKEN" ]; then # needed until its key is known
          printf 'set -- --key-file %s\n' "$(quote "$DIRECTORY/node.key")"
          printf '[ ! -f %s ] || set -- "$@" --join-token-file %s\n' \
              "$(quote "$DIRECTORY/token")" "$(quote "$DIRECTORY/token")"
      fi
      printf 'exec %s' "$(quote "$DIRECTORY/venv/bin/burla-nodelet")"
      printf ' --scheduler %s --name %s' "$(quote "$SCHEDULER")" "$(quote "$NAME")"
      printf ' --ready-file %s' "$(quote "$DIRECTORY/ready")"
      printf ' --packages-directory %s' "$(quote "$DIRECTORY/packages")"
      [ -z "$PACKAGES" ] || printf ' --packages %s' "$(quote "$DIRECTORY/packages.txt")"
      [ -z "$WHEELHOUSE" ] || printf ' --wheelhouse %s' "$(quote "$(readlink -f "$WHEELHOUSE")")"
      [ -z "$INDEX" ] || printf ' --index %s' "$(quote "$INDEX")"
      [ -z "$CPUS" ] || printf ' --cpus %s' "$(quote "$CPUS")"
      [ -z "$RAM" ] || printf ' --ram %s' "$(quote "$RAM")"
      [ -z "$LOG_LEVEL" ] || printf ' --log-level %s' "$(quote "$LOG_LEVEL")"
      echo ' "$@"'; } > "$DIRECTORY/node.sh"
    keep
    echo "$SETTINGS" > "$DIRECTORY/settings.new"
    mv "$DIRECTORY/settings.new" "$DIRECTORY/settings"
}

keep() { # what starts the daemon again: this script and, with systemd, a unit
    if [ -n "${BURLA_SCRIPT-}" ]; then printf '%s\n' "$BURLA_SCRIPT" > "$DIRECTORY/$PROGRAM.new"
    else cat "$0" > "$DIRECTORY/$PROGRAM.new" # it may be the very file that is replaced
    fi
    mv "$DIRECTORY/$PROGRAM.new" "$DIRECTORY/bootstrap.sh"
    [ "$SERVICE" = systemd ] || return 0
    unit > "$UNIT_FILE.new"
    chmod 644 "$UNIT_FILE.new"
    mv "$UNIT_FILE.new" "$UNIT_FILE"
    systemctl daemon-reload
}

unit() {
    private_tmp=yes
    case "$DIRECTORY/ $SCHEDULER" in *'/tmp/'*) private_tmp=no ;; esac # else it would not find its own files there
    cat <<END
[Unit]
Description=burla $PROGRAM of cluster $CLUSTER
Wants=network-online.target
After=network-online.target
StartLimitIntervalSec=0

[Service]
ExecStart=/bin/sh $DIRECTORY/$PROGRAM.sh
SyslogIdentifier=burla-$PROGRAM
WorkingDirectory=$DIRECTORY
ReadWritePaths=$DIRECTORY
UMask=0077
LimitNOFILE=65536
# The daemon ends what it started; whatever is left after that is killed.
KillMode=mixed
TimeoutStopSec=$STOP_S
ProtectHome=read-only
PrivateTmp=$private_tmp
PrivateMounts=yes
ProtectClock=yes
ProtectHostname=yes
ProtectKernelLogs=yes
ProtectKernelModules=yes
ProtectKernelTunables=yes
LockPersonality=yes
RestrictAddressFamilies=AF_UNIX AF_INET AF_INET6 AF_NETLINK
RestrictRealtime=yes
SystemCallArchitectures=native
END
    case $PROGRAM in scheduler) unit_of_scheduler ;; autoscaler) unit_of_autoscaler ;; *) unit_of_node ;; esac
    cat <<END

[Install]
WantedBy=multi-user.target
END
}

unit_of_scheduler() { # it needs no rights but to its keys; stuck or out of memory, it is begun anew
    cat <<END
Type=notify
WatchdogSec=20
Restart=always
RestartSec=0.5
RestartPreventExitStatus=2 78
MemoryMax=75%
CapabilityBoundingSet=
NoNewPrivileges=yes
ProtectSystem=strict
ProtectControlGroups=yes
ProtectProc=invisible
PrivateDevices=yes
RestrictNamespaces=yes
RestrictSUIDSGID=yes
SystemCallFilter=@system-service
END
}

unit_of_autoscaler() { # it runs the tools of a cloud or of Slurm
    cat <<END
Restart=on-failure
RestartSec=5
ProtectSystem=full
END
}

unit_of_node() { # it makes sandboxes: namespaces, mounts, users
    cat <<END
Restart=on-failure
RestartSec=1
# A worker that is killed for memory is the nodelet's business.
OOMPolicy=continue
Delegate=yes
CapabilityBoundingSet=CAP_CHOWN CAP_DAC_OVERRIDE CAP_DAC_READ_SEARCH CAP_FOWNER CAP_KILL CAP_SETGID CAP_SETUID
CapabilityBoundingSet=CAP_NET_ADMIN CAP_SETPCAP CAP_SYS_ADMIN CAP_SYS_PTRACE CAP_SYS_RESOURCE
NoNewPrivileges=yes
ProtectSystem=full
ProtectProc=invisible
RestrictSUIDSGID=yes
SystemCallFilter=~@clock @cpu-emulation @module @obsolete @raw-io @reboot @swap
# GPUs, but no disks.
DevicePolicy=closed
DeviceAllow=char-* rw
END
}

start() { # a join token, if there is one, comes on stdin: never on a command line, gone when it was used
    stop
    [ "$TOKEN" != - ] || cat > "$DIRECTORY/token"
    echo "$(stamp installed) $(stamp settings)" > "$DIRECTORY/running"
    launch
}

run() { # one of the daemons of a cluster's head, whose PROGRAM.sh is there; returns when it serves, or has failed
    stop
    keep
    launch || :
    until_s=$(($(date +%s) + WAIT_S))
    while [ ! -f "$READY" ]; do
        if [ -z "$(supervisor)" ] || [ "$(date +%s)" -ge "$until_s" ]; then
            log_tail >&2
            stop
            exit 1
        fi
        sleep 0.05
    done
    : > "$SERVED" # from now on it is started again: a nodelet that fails takes its ready file along
}

launch() {
    if [ "$SERVICE" = systemd ]; then systemctl enable --quiet --now "$UNIT"
    else
        detach=setsid
        command -v setsid > /dev/null || detach=nohup
        BURLA_UMASK=$UMASK $detach sh "$DIRECTORY/bootstrap.sh" supervise --directory "$DIRECTORY" --service process --program "$PROGRAM" \
            < /dev/null >> "$LOG" 2>&1 &
        while [ -z "$(supervisor)" ] && kill -0 $! 2> /dev/null; do sleep 0.01; done
    fi
}

supervise() { # the background process where there is no systemd: starts the daemon again if it fails
    unset LC_ALL PYTHONDONTWRITEBYTECODE BURLA_UMASK # ours, and not for the calls that will run here
    pause_s=1 child=''
    trap 'trap "" TERM; [ -z "$child" ] || { kill -TERM "$child" && wait "$child"; } || :; rm -f "$PID" "$CHILD"; exit 0' TERM
    trap '[ -z "$child" ] || kill -USR1 "$child" || :' USR1
    trap '' HUP
    note "$PID" $$
    cd /
    [ "$PROGRAM" = node ] || umask "$UMASK" # what runs here is its user's, as if started by hand
    while :; do
        turn_log_over
        began_s=$(date +%s)
        sh "$DIRECTORY/$PROGRAM.sh" &
        child=$!
        note "$CHILD" "$child"
        while :; do # a signal ends a wait before the child has ended
            status=0; wait "$child" || status=$?
            [ "$status" -gt 128 ] && kill -0 "$child" 2>/dev/null || break
        done
        [ "$status" != 0 ] || break
        # A daemon of the head that never served has been started by a command, which tells people.
        [ "$PROGRAM" = node ] || [ -f "$READY" ] || [ -f "$SERVED" ] || break
        echo "burla: the $PROGRAM ended with status $status; starting it again in $pause_s s"
        [ $(($(date +%s) - began_s)) -lt 60 ] || pause_s=1
        child=''
        sleep "$pause_s" & wait $! || :
        pause_s=$((pause_s * 2)); [ "$pause_s" -le "$BACKOFF_MAX_S" ] || pause_s=$BACKOFF_MAX_S
    done
    rm -f "$PID" "$CHILD"
}

turn_log_over() { # copied, not moved: whoever writes to it goes on in the same file
    [ "$(du -k "$LOG" | cut -f1)" -gt "$LOG_KB" ] || return 0
    cat "$LOG" > "$LOG.1"
    : > "$LOG"
}

hello() { # waits until the scheduler has welcomed this node
    until_s=$(($(date +%s) + WAIT_S))
    while [ ! -f "$READY" ]; do
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
    if [ "$SERVICE" = systemd ]; then journalctl --no-pager -q -n 8 -o cat -u "$UNIT" || :
    else tail -n 5 "$LOG" || :
    fi
}

up() { # all of it, by hand
    [ -n "$SCHEDULER" ] || fail "up needs --scheduler ADDRESS"
    [ -f "$WHEEL" ] || fail "up needs --wheel FILE, the wheel of burla"
    mkdir -p "$DIRECTORY"
    INSTALLED="$PYTHON $(sha256sum < "$WHEEL" | cut -d' ' -f1)"
    [ "$(stamp installed)" = "$INSTALLED" ] || { venv; install; }
    [ -z "$PACKAGES" ] || packages
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

end() { # the process in a file of `note`
    pid=$(living "$1")
    [ -n "$pid" ] || return 0
    kill -TERM "$pid" || :
    wait_ended "$pid" "$STOP_S" || kill -KILL "-$pid" "$pid" || :
}

stop() {
    if [ "$SERVICE" = systemd ] && [ -f "$UNIT_FILE" ]; then
        systemctl disable --quiet --now "$UNIT"
        systemctl reset-failed "$UNIT" 2> /dev/null || :
    fi
    end "$PID"
    end "$CHILD" # its supervisor may have been killed
    rm -f "$READY" "$PID" "$CHILD" "$SERVED"
    [ "$PROGRAM" != node ] || rm -f "$DIRECTORY/running" "$DIRECTORY/token"
}

forget() { # a daemon of the head: end it, and leave nothing of it
    stop
    [ "$SERVICE" != systemd ] || [ ! -f "$UNIT_FILE" ] || { rm -f "$UNIT_FILE"; systemctl daemon-reload; }
    rm -f "$DIRECTORY/$PROGRAM".*
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
        exec 9> "$LOCK"
        flock -w 300 9 || fail "another bootstrap has been running here for 300 s"
    fi
    "$1" 9>&-
}

command=${1-help}
[ $# -eq 0 ] || shift
options "$@"
case $command in
    facts | hello | supervise | deadman | unit) $command ;;
    ship | venv | install | packages | service | start | up | run) alone $command ;;
    stop | drain | remove | forget) # a unit may be left of a folder that somebody has deleted
        [ ! -d "$DIRECTORY" ] && [ ! -f "$UNIT_FILE" ] || alone $command ;;
    *) sed -n '2,11s/^# \{0,1\}//p' "$0"; exit 2 ;;
esac
