#!/usr/bin/env bash
# psql: its backslash queries, scripts, \copy, FETCH_COUNT, Ctrl-C, and pg_dump.
# The transcript of each script (messages with SQLSTATE) goes on `see` lines.
set -uo pipefail
url=$1
here=$(dirname "${BASH_SOURCE[0]}")
failed=0
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
export PGCONNECT_TIMEOUT=10 PSQLRC=/dev/null PAGER=cat PGAPPNAME=psql

transcript() { # NAME: standard input without what differs from run to run
    sed -E -e '/^LOCATION: /d' -e 's/(process ID|PID) [0-9]+/\1 N/g' -e 's/with PID [0-9]+/with PID N/' \
        -e 's/^/see '"$1"': /'
}
result() { # NAME STATUS WANTED
    if [ "$2" = "$3" ]; then echo "ok $1"; else failed=1 && echo "FAIL $1: exit $2, expected $3"; fi
}

for script in "$here"/psql/*.sql; do
    name=$(basename "$script" .sql)
    (cd "$scratch" && timeout 40 psql -X -a -v VERBOSITY=verbose "$url" -f "$OLDPWD/$script" >out 2>&1)
    status=$?
    transcript "$name" <"$scratch/out"
    result "$name" $status 0
done

# -c: one simple query of several statements, an error in the middle.
psql -X -v VERBOSITY=sqlstate "$url" -c "select 1; select 2" -c "select 3; select 1/0; select 4" -c "select 5" 2>&1 | transcript commands
result commands "${PIPESTATUS[0]}" 0
psql -X -v VERBOSITY=sqlstate -v ON_ERROR_STOP=1 "$url" -c "select 1/0" >/dev/null 2>&1
result command_error $? 1
psql -X --single-transaction -v VERBOSITY=sqlstate "$url" -c "create table d_psql_single (a int)" -c "select 1/0" >/dev/null 2>&1
psql -XAt "$url" -c "select to_regclass('d_psql_single') is null" 2>&1 | transcript single_transaction
result single_transaction 0 0

# Ctrl-C: psql sends a CancelRequest and goes on with the next command.
printf 'select pg_sleep(30);\nselect 1 as after;\n' | (trap - INT; exec psql -X -v VERBOSITY=sqlstate "$url") >"$scratch/cancel" 2>&1 &
sleep 0.7
pkill_pid=$(pgrep -P $! -x psql || true)
kill -INT "${pkill_pid:-$!}" 2>/dev/null
wait $!
transcript cancel <"$scratch/cancel"
result cancel "$(grep -c 57014 "$scratch/cancel")" 1

# A dump taken through the router is the dump taken directly; and it loads.
psql -Xq "$url" -f "$here/psql/dumped.schema" >/dev/null 2>"$scratch/err"
result schema_loads $? 0
pg_dump --schema=d_psql_dump "$url" >"$scratch/dump.sql" 2>"$scratch/err"
result dump $? 0
grep -v -E '^\\(un)?restrict|^-- Dumped' "$scratch/dump.sql" | sha256sum | transcript dump_is_the_same
result dump_is_the_same 0 0
psql -Xq "$url" -c 'drop schema d_psql_dump cascade' >/dev/null 2>&1
psql -Xq -v ON_ERROR_STOP=1 "$url" -f "$scratch/dump.sql" >/dev/null 2>"$scratch/err"
result restore $? 0
pg_dump --schema=d_psql_dump "$url" 2>&1 | grep -v -E '^\\(un)?restrict|^-- Dumped' | sha256sum | transcript restore_is_the_same
result restore_is_the_same 0 0
psql -Xq "$url" -c 'drop schema d_psql_dump cascade' >/dev/null 2>&1
pg_isready -q -d "$url"
result isready $? 0
exit $failed
