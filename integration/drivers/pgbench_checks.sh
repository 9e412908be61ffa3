#!/usr/bin/env bash
# pgbench in its three protocols, with more clients than backends, pipelines,
# COPY at its start, and every transaction accounted for.
set -uo pipefail
url=$1
PGBENCH=${PGBENCH:-pgbench}
failed=0
scripts=$(mktemp -d)
trap 'rm -rf "$scripts"' EXIT

# check NAME TRANSACTIONS ARG…: all transactions done, none failed.
check() {
    local name=$1 transactions=$2 out
    shift 2
    if ! out=$(timeout 60 "$PGBENCH" --no-vacuum "$@" "$url" 2>&1); then
        failed=1
        echo "FAIL $name: $(echo "$out" | grep -E 'error|fatal|ERROR|FATAL|abort' | head -3 | tr '\n' ' ')"
    elif ! grep -q "actually processed: $transactions/$transactions" <<<"$out"; then
        failed=1
        echo "FAIL $name: $(grep 'actually processed' <<<"$out")"
    elif grep -q 'number of failed transactions: [1-9]' <<<"$out"; then
        failed=1
        echo "FAIL $name: $(grep 'failed transactions' <<<"$out")"
    else
        echo "ok $name"
    fi
}

# same NAME SQL: what the database says, to be compared.
same() {
    echo "see $1: $(psql -XAtq "$url" -c "$2" 2>&1)"
}

if out=$(timeout 60 "$PGBENCH" -i -s 1 -q "$url" 2>&1); then
    same initialize "select count(*), (select count(*) from pgbench_branches) from pgbench_accounts"
    echo "ok initialize"
else
    failed=1
    echo "FAIL initialize: $(tail -2 <<<"$out" | tr '\n' ' ')"
fi
for protocol in simple extended prepared; do
    check "select_$protocol" 1600 -S -M $protocol -c 8 -t 200
    check "tpcb_$protocol" 400 -M $protocol -c 8 -t 50
    check "many_clients_$protocol" 1200 -S -M $protocol -c 40 -j 2 -t 30
done
check "reconnecting" 80 -S -C -c 4 -t 20

cat >"$scripts/pipeline.sql" <<'SQL'
\set id random(1, 100000)
\startpipeline
begin;
select abalance from pgbench_accounts where aid = :id;
update pgbench_tellers set tbalance = tbalance + 1 where tid = 1 + :id % 10;
select 1;
commit;
\endpipeline
SQL
for protocol in extended prepared; do
    check "pipeline_$protocol" 400 -M $protocol -c 8 -t 50 -f "$scripts/pipeline.sql"
done

cat >"$scripts/mixed.sql" <<'SQL'
\set n random(1, 1000)
begin;
set local work_mem = '5MB';
select :n + 1 as m \gset
savepoint s;
select count(*) from pgbench_branches where bid = :m;
rollback to s;
end;
set application_name = 'mixed';
select 'a' as a \; select 'b' as b;
SQL
check "mixed_simple" 400 -M simple -c 8 -t 50 -f "$scripts/mixed.sql"

# TPC-B's invariant holds whatever was pooled: 3 runs of 400 transactions.
same consistent "select (select count(*) from pgbench_history), (select sum(delta) from pgbench_history) = (select sum(abalance) from pgbench_accounts)"
echo "ok consistent"
psql -XAtq "$url" -c "drop table pgbench_accounts, pgbench_branches, pgbench_history, pgbench_tellers" >/dev/null 2>&1
exit $failed
