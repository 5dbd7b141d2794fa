#!/usr/bin/env bash
# A PostgreSQL server for tests: on a free port of 127.0.0.1, in a temporary directory, gone when the command ends.
#
#   tests/postgres.sh run COMMAND...   runs the command with TEST_POSTGRES_URL set to the server's URL
#
# A server that ends before the command does is started again, with its data: the command may end the process whose number
# is the first line of the file TEST_POSTGRES_PID names (SIGQUIT is what "pg_ctl stop -m immediate" sends).
#
# Needs the programs of PostgreSQL 13 or later; GUANTONG_POSTGRES_BIN names their directory where it is not found. The
# server never runs as root: started by root, it runs as the user postgres, or else nobody. It keeps nothing over a
# power loss, so never give it data that matters.
set -euo pipefail

usage() {
    sed -n '2,11s/^# \{0,1\}//p' "${BASH_SOURCE[0]}"
    exit "${1:-2}"
}

[[ ${1:-} == --help || ${1:-} == -h ]] && usage 0
[[ ${1:-} == run && $# -ge 2 ]] || usage
shift

bin=${GUANTONG_POSTGRES_BIN:-}
if [[ -z $bin ]]; then
    # The newest of Debian's, which are not in PATH.
    bin=$(compgen -G '/usr/lib/postgresql/*/bin/initdb' | sort -V | tail -n 1 || true)
    [[ -n $bin ]] || bin=$(command -v initdb || true)
    [[ -n $bin ]] || { echo "tests/postgres.sh: no initdb found; install PostgreSQL (Debian: apt-get install postgresql)" >&2 && exit 3; }
    bin=$(dirname "$bin")
fi

work=$(mktemp -d)
server=""
command=""

as_server=()
if ((EUID == 0)); then
    user=nobody
    ! id postgres >/dev/null 2>&1 || user=postgres
    as_server=(setpriv "--reuid=$user" "--regid=$(id -g "$user")" --clear-groups)
    command -v setpriv >/dev/null 2>&1 || as_server=(su -s /bin/sh "$user" -c 'exec "$0" "$@"' --)
    chown "$user" "$work"
    chmod 700 "$work"
fi

# Stops the server whatever happens, at once and without waiting for its clients.
finish() {
    local code=$?
    trap - EXIT
    if [[ -n $command ]]; then
        kill -TERM "$command" 2>/dev/null || true
        wait "$command" 2>/dev/null || true
    fi
    if [[ -n $server ]]; then
        # The postmaster stops for TERM when the last client has gone, for QUIT at once.
        kill -QUIT "$server" 2>/dev/null || true
        wait "$server" 2>/dev/null || true
    fi
    rm -rf "$work"
    exit "$code"
}
trap finish EXIT
trap 'exit 130' INT
trap 'exit 143' TERM
trap 'exit 129' HUP

cd "$work"
password=$(od -An -N16 -tx1 /dev/urandom | tr -d ' \n')
(umask 077 && echo "$password" >"$work/password")
((EUID != 0)) || chown "$user" "$work/password"
if ! "${as_server[@]}" "$bin/initdb" --pgdata="$work/data" --username=postgres --pwfile="$work/password" \
    --auth=scram-sha-256 --encoding=UTF8 --locale=C.UTF-8 --no-sync >"$work/initdb.log" 2>&1; then
    cat "$work/initdb.log" >&2
    exit 3
fi

# Its own log says so: on the port another server may answer.
is_up() {
    grep -q 'ready to accept connections' "$work/server.log" 2>/dev/null
}

# Starts the server on $port, and says whether it came up.
start() {
    : >"$work/server.log"
    "${as_server[@]}" "$bin/postgres" -D "$work/data" -c listen_addresses=127.0.0.1 -c "port=$port" \
        -c unix_socket_directories= -c fsync=off -c full_page_writes=off -c max_connections=200 \
        >>"$work/server.log" 2>&1 &
    server=$!
    until is_up; do
        kill -0 "$server" 2>/dev/null || break
        sleep 0.05
    done
    kill -0 "$server" 2>/dev/null && return
    wait "$server" 2>/dev/null || true
    server=""
    return 1
}

# A free port is only known to be free once it is taken: others are tried while it is not.
for attempt in {1..20}; do
    port=$((20000 + RANDOM % 12000))
    if start; then break; fi
done
if [[ -z $server ]]; then
    echo "tests/postgres.sh: the server did not start (attempt $attempt); its log ends:" >&2
    tail -n 20 "$work/server.log" >&2
    exit 3
fi

cd "$OLDPWD"
TEST_POSTGRES_URL="postgres://postgres:$password@127.0.0.1:$port/postgres" TEST_POSTGRES_PID="$work/data/postmaster.pid" "$@" &
command=$!
while true; do
    code=0
    wait -n -p ended "$server" "$command" || code=$?
    if [[ $ended == "$command" ]]; then break; fi
    echo "tests/postgres.sh: the server ended (exit status $code) and is started again" >&2
    if ! start; then
        echo "tests/postgres.sh: the server does not start again; its log ends:" >&2
        tail -n 20 "$work/server.log" >&2
        exit 3
    fi
done
command=""
exit "$code"
