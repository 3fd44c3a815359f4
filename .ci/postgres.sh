# shellcheck shell=bash
# Starts a temporary PostgreSQL with the programs of this machine, for the other scripts of this directory.

# Prints the program directory of the newest server that rosterd supports (15 to 18), or of the one that the demo or the tests
# downloaded. If there is none, downloads it as they do. Fails if that fails.
postgres_programs() {
    installed_postgres_programs && return
    local dir
    for dir in target/postgresql/*/bin; do
        if [ -x "$dir/postgres" ]; then
            (cd "$dir" && pwd)
            return
        fi
    done
    command -v cargo >/dev/null && cargo run --quiet --locked --example postgres_programs
}

installed_postgres_programs() {
    local dir version best='' newest=14
    for dir in "$(pg_config --bindir 2>/dev/null || true)" /usr/lib/postgresql/*/bin /usr/pgsql-*/bin \
        /opt/homebrew/opt/postgresql@*/bin /usr/local/opt/postgresql@*/bin; do
        if ! [ -x "$dir/initdb" ] || ! [ -x "$dir/pg_ctl" ] || ! [ -x "$dir/postgres" ]; then continue; fi
        version=$("$dir/postgres" --version | sed 's/[^0-9]*\([0-9]*\).*/\1/')
        if [ "$version" -gt "$newest" ] && [ "$version" -le 18 ]; then
            best=$dir newest=$version
        fi
    done
    [ -n "$best" ] && echo "$best"
}

# Starts a server that listens only on a socket in the new directory $1; sets POSTGRES_URL.
postgres_start() {
    local dir=$1 programs
    programs=$(postgres_programs) || {
        echo "no PostgreSQL server (15 to 18) is installed here, and none could be downloaded: install the package postgresql" >&2
        return 1
    }
    # PostgreSQL refuses to run as root.
    AS_SERVER=()
    if [ "$(id -u)" = 0 ]; then
        local user=nobody
        id postgres >/dev/null 2>&1 && user=postgres
        chown "$user" "$dir"
        AS_SERVER=(runuser -u "$user" --)
    fi
    POSTGRES_CTL=("${AS_SERVER[@]+"${AS_SERVER[@]}"}" "$programs/pg_ctl" --pgdata "$dir/data" --silent)
    # In a directory that the server's user may enter.
    (
        cd "$dir" || exit
        "${AS_SERVER[@]+"${AS_SERVER[@]}"}" "$programs/initdb" --pgdata "$dir/data" --username postgres \
            --auth trust --encoding UTF8 --locale C --no-sync >/dev/null
        "${POSTGRES_CTL[@]}" start --wait --log "$dir/log" \
            --options "-c listen_addresses='' -c unix_socket_directories='$dir' -c fsync=off"
    )
    PATH=$programs:$PATH
    # shellcheck disable=SC2034 # used by the sourcing scripts
    POSTGRES_URL="postgres://postgres@localhost/postgres?host=$dir"
}

# Stops the server in $1 and removes the directory.
postgres_stop() {
    if [ -e "$1/data/postmaster.pid" ]; then
        (cd "$1" && "${POSTGRES_CTL[@]}" stop --mode immediate) || true
    fi
    rm -rf "$1"
}
