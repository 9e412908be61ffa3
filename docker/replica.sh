#!/usr/bin/env bash
# Copies the primary on the first start, then runs the server as the image does.
set -euo pipefail

if [ ! -s "$PGDATA/PG_VERSION" ]; then
  install -d -m 0700 -o postgres -g postgres "$PGDATA"
  PGPASSWORD=$REPLICATION_PASSWORD gosu postgres pg_basebackup --pgdata "$PGDATA" \
    --host "$PRIMARY_HOST" --port "$PRIMARY_PORT" --username keyway_replication \
    --slot keyway_replica1 --wal-method stream --checkpoint fast --write-recovery-conf
fi

exec docker-entrypoint.sh "$@"
