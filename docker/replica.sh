#!/usr/bin/env bash
# Copies the primary on the first start, then runs the server as the image does.
set -euo pipefail

if [ ! -s "$PGDATA/PG_VERSION" ]; then
  # Under another name until it is whole: a copy that was broken off would start.
  part=$PGDATA.part
  rm -rf "$part" "$PGDATA"
  install -d -m 0700 -o postgres -g postgres "$part"
  PGPASSWORD=$REPLICATION_PASSWORD gosu postgres pg_basebackup --pgdata "$part" \
    --host "$PRIMARY_HOST" --port "$PRIMARY_PORT" --username keyway_replication \
    --slot keyway_replica1 --wal-method stream --checkpoint fast --write-recovery-conf
  mv "$part" "$PGDATA"
fi

exec docker-entrypoint.sh "$@"
