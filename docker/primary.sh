#!/usr/bin/env bash
# Runs once, in a new primary's container: the application's login and database,
# what the replica needs, and this shard's part of the sample.
set -euo pipefail

run() {
  psql -v ON_ERROR_STOP=1 --no-psqlrc --quiet --username postgres "$@"
}

run -v app_password="$APP_PASSWORD" -v replication_password="$REPLICATION_PASSWORD" <<'SQL'
CREATE ROLE app LOGIN PASSWORD :'app_password' IN ROLE pg_monitor;
CREATE ROLE keyway_replication LOGIN REPLICATION PASSWORD :'replication_password';
CREATE DATABASE app OWNER app;
SELECT pg_create_physical_replication_slot('keyway_replica1', true);
SQL

echo 'host replication keyway_replication all scram-sha-256' >>"$PGDATA/pg_hba.conf"

psql -v ON_ERROR_STOP=1 --no-psqlrc --quiet --username app --dbname app \
  -v shard="$SHARD" -v first="$SLOT_FIRST" -v last="$SLOT_LAST" \
  -f /sample/schema.sql -f /sample/data.sql
