"""psycopg 3 on two shards: pools, tenants by turns, prepared statements with
text and binary keys of every type, savepoints, COPY, pipelines, cancel, and
what its tools and SQLAlchemy ask the catalogs.
"""

import os
import threading
import time
import uuid

import psycopg
from psycopg.types import TypeInfo
from psycopg.types.enum import EnumInfo
from psycopg_pool import ConnectionPool

from checks import check, equal, main, url

SHARDS = [os.environ["KEYWAY_TEST_SHARD1"], os.environ["KEYWAY_TEST_SHARD2"]]
direct = [psycopg.connect(u, autocommit=True) for u in SHARDS]
PORT = "current_setting('port')::int"


def connect(**options):
    options.setdefault("autocommit", True)
    return psycopg.connect(url(), connect_timeout=10, **options)


def owner(tenant):
    """The shard that has a tenant of the sample."""
    found = [c for c in direct if c.execute("select 1 from tenants where tenant_id = %s", (tenant,)).fetchone()]
    equal(len(found), 1, f"shards with tenant {tenant}")
    return found[0]


def tenants(shard, count):
    rows = direct[shard].execute("select tenant_id from tenants where tenant_id <= 300 order by 1 limit %s", (count,))
    return [row[0] for row in rows]


def fails(state, run):
    try:
        run()
    except psycopg.Error as error:
        equal(error.sqlstate, state, f"SQLSTATE of {error}")
        return error
    raise AssertionError(f"no error, expected {state}")


@check
def tenants_by_turns_are_read_from_their_shards():
    statements = [
        "select {p}, name from tenants where tenant_id = %s",
        "select {p}, count(*) from tasks where tenant_id = %s",
        "select {p}, t.name, count(*) from tenants t join users u using (tenant_id) where tenant_id = %s group by 2",
        "select {p}, pl.title from tenants t join plans pl using (plan_code) where t.tenant_id = %s",
    ]
    with connect() as c:
        for prepare in (False, True, None):
            for tenant in range(1, 41):
                sql = statements[tenant % 4].format(p=PORT)
                there = owner(tenant).execute(sql, (tenant,)).fetchone()
                equal(c.execute(sql, (tenant,), prepare=prepare).fetchone(), there)
                equal(c.execute(sql.replace("%s", "%b"), (tenant,), prepare=prepare).fetchone(), there)


@check
def keys_of_every_type_in_both_formats():
    keys = {
        "int2": [0, -1, 32767, -32768], "int4": [0, 70000, -5, 2**31 - 1], "int8": [2**40, -1, 3, -(2**63)],
        "text": ["", "a b", "\u00e4\u20ac", "it's"], "varchar": ["x", "caf\u00e9", "'"],
        "uuid": [uuid.UUID(int=n * 7**40 % 2**128) for n in range(1, 6)],
    }
    with connect(prepare_threshold=2) as c:
        for kind, values in keys.items():
            for table in (f"by_{kind}", f"part_{kind}"):
                for n, key in enumerate(values):
                    for place in ("%s", "%b", f"%s::{kind}", "%t"):
                        c.execute(f"delete from {table} where k = {place} and n = %s", (key, 90000 + n))
                        c.execute(f"insert into {table} (k, n, note) values ({place}, %s, 'p')", (key, 90000 + n))
                        sql = f"select {PORT}, k from {table} where k = {place} and n = 90000 + {n}"
                        port, got = c.execute(sql, (key,)).fetchone()
                        equal(got, key)
                        here = [d for d in direct if d.execute(f"select 1 from {table} where n = {90000 + n} and k = %s", (key,)).fetchone()]
                        equal([d.info.port for d in here], [port], f"where {kind} {key!r} is")
                        c.execute(f"update {table} set note = 'q' where k = {place} and n = %s", (key, 90000 + n))
                    c.execute(f"delete from {table} where k = %s and n >= 90000", (key,))


@check
def transactions_stay_on_their_tenants_shard():
    with connect(autocommit=False) as c:
        for tenant in tenants(0, 3) + tenants(1, 3):
            there = owner(tenant)
            with c.transaction():
                c.execute("insert into notes (tenant_id, id, body) values (%s, 1, 'a')", (tenant,))
                try:
                    with c.transaction():
                        c.execute("update notes set body = 'b' where tenant_id = %s", (tenant,))
                        c.execute("select 1/0")
                except psycopg.errors.DivisionByZero:
                    pass
                with c.transaction():
                    c.execute("insert into notes (tenant_id, id, body) values (%s, 2, 'c')", (tenant,))
            rows = there.execute("select id, body from notes where tenant_id = %s order by id", (tenant,)).fetchall()
            equal(rows, [(1, "a"), (2, "c")])
            c.execute("delete from notes where tenant_id = %s", (tenant,))
            c.rollback()
            equal(c.execute("select count(*) from notes where tenant_id = %s", (tenant,)).fetchone(), (2,))
            c.rollback()
            c.execute("delete from notes where tenant_id = %s", (tenant,))
            c.commit()
        one, two = tenants(0, 1)[0], tenants(1, 1)[0]
        c.execute("select name from tenants where tenant_id = %s", (one,))
        error = fails("0A000", lambda: c.execute("update tenants set name = name where tenant_id = %s", (two,)))
        equal("commit first" in error.diag.message_hint, True, "the way out")
        fails("25P02", lambda: c.execute("select 1"))
        c.rollback()
        for mode in ({"isolation_level": psycopg.IsolationLevel.SERIALIZABLE}, {"read_only": True}, {"deferrable": True}):
            for name, value in mode.items():
                setattr(c, name, value)
            c.execute("select name from tenants where tenant_id = %s", (two,))
            c.rollback()


@check
def rows_go_in_by_many():
    tenant, other = tenants(1, 1)[0], tenants(0, 1)[0]
    with connect() as c:
        rows = [(tenant, n, "many") for n in range(200, 260)]
        c.cursor().executemany("insert into notes (tenant_id, id, body) values (%s, %s, %s)", rows)
        values = ", ".join(["(%s, %s, %s)"] * 3)
        c.execute(f"insert into notes (tenant_id, id, body) values {values}", (tenant, 300, "x", tenant, 301, "y", tenant, 302, "z"))
        equal(direct[1].execute("select count(*) from notes where tenant_id = %s", (tenant,)).fetchone(), (63,))
        cursor = c.cursor()
        cursor.executemany("delete from notes where tenant_id = %s and id = %s returning id", [(tenant, 300), (tenant, 301)], returning=True)
        equal(cursor.fetchone(), (300,))
        fails("0A000", lambda: c.execute(f"insert into notes (tenant_id, id, body) values {values}", (tenant, 1, "x", other, 1, "y", tenant, 2, "z")))
        c.execute("delete from notes where tenant_id = %s", (tenant,))


@check
def copy_of_a_query_and_into_tables_of_one_shard():
    tenant = tenants(1, 2)[1]
    with connect() as c:
        sql = f"copy (select task_id, title from tasks where tenant_id = {tenant} order by 1) to stdout"
        with c.cursor().copy(sql) as copy, direct[1].cursor().copy(sql) as there:
            equal(b"".join(bytes(part) for part in copy), b"".join(bytes(part) for part in there))
        with c.cursor().copy("copy plans to stdout (format csv)") as copy:
            equal(len(b"".join(bytes(part) for part in copy).splitlines()), 3)
        with c.cursor().copy("copy audit.entries from stdin") as copy:
            for n in range(50):
                copy.write_row((10_000 + n, "copied"))
        equal(direct[1].execute("select count(*) from audit.entries where what = 'copied'").fetchone(), (50,))
        c.execute("delete from audit.entries where what = 'copied'")

        def into():
            with c.cursor().copy("copy notes from stdin") as copy:
                copy.write_row((tenant, 1, "x"))

        fails("0A000", into)
        equal(c.execute("select 1").fetchone(), (1,))


@check
def errors_in_a_pipeline_fail_its_batch_only():
    tenant, other = tenants(1, 1)[0], tenants(0, 1)[0]
    with connect() as c:
        with c.pipeline() as p:
            cursors = [c.execute("select name from tenants where tenant_id = %s", (tenant,)) for _ in range(3)]
            p.sync()
            more = c.execute(f"select {PORT} from tenants where tenant_id = %s", (other,))
            p.sync()
            equal(len({cursor.fetchone() for cursor in cursors}), 1)
            equal(more.fetchone()[0], direct[0].info.port)

        def bad():
            with c.pipeline() as p:
                c.execute("insert into notes (tenant_id, id) values (%s, 500)", (tenant,))
                c.execute("select count(*) from tasks where task_id = %s", (1,))
                p.sync()

        fails("0A000", bad)
        count = "select count(*) from notes where tenant_id = %s and id = 500"
        equal(c.execute(count, (tenant,)).fetchone(), (0,), "a batch is one transaction")
        with c.pipeline(), c.transaction():
            c.execute("insert into notes (tenant_id, id) values (%s, 501)", (tenant,))
            c.execute("delete from notes where tenant_id = %s and id = 501", (tenant,))


@check
def ping_runs_beside_a_transaction_of_any_mode():
    for tenant in (tenants(0, 1)[0], tenants(1, 1)[0]):
        with connect(autocommit=False) as c:
            c.isolation_level = psycopg.IsolationLevel.SERIALIZABLE
            c.execute("select 1")
            equal(c.execute("select tenant_id from tenants where tenant_id = %s", (tenant,)).fetchone(), (tenant,))


@check
def batch_that_does_more_than_read_is_no_replicas():
    primaries = [d.info.port for d in direct]
    with psycopg.connect(os.environ["KEYWAY_TEST_ANY"], autocommit=True) as c:
        for tenant in (tenants(0, 1)[0], tenants(1, 1)[0]):
            read = f"select {PORT} from tenants where tenant_id = %s"
            deadline = time.monotonic() + 30
            while c.execute(read, (tenant,)).fetchone()[0] in primaries:
                equal(time.monotonic() < deadline, True, "a replica is found in time")
                time.sleep(0.05)
            for second in ("insert into notes (tenant_id, id) values (%s, 950) returning 1", "delete from notes where tenant_id = %s and id = 950",
                           "select random() from tenants where tenant_id = %s for share", "select touch() from tenants where tenant_id = %s"):
                with c.pipeline():
                    port = c.execute(read, (tenant,))
                    c.execute(second, (tenant,))
                equal(port.fetchone()[0] in primaries, True, "the batch of " + second)


@check
def cancel_reaches_the_shard_that_runs_the_statement():
    for tenant in (tenants(0, 1)[0], tenants(1, 1)[0]):
        with connect() as c:
            threading.Timer(0.3, c.cancel_safe).start()
            began = time.monotonic()
            fails("57014", lambda: c.execute("select pg_sleep(20) from tenants where tenant_id = %s", (tenant,)))
            equal(time.monotonic() - began < 15, True, "ended early")
            equal(c.execute("select 1").fetchone(), (1,))


@check
def pool_of_many_workers():
    wrong = []
    homes = {t: direct[s].info.port for s in (0, 1) for t in tenants(s, 20)}

    def work(number):
        for tenant, port in list(homes.items())[number::4]:
            with pool.connection() as c:
                row = c.execute(f"select {PORT}, tenant_id from tenants where tenant_id = %s", (tenant,)).fetchone()
                if row != (port, tenant):
                    wrong.append(row)
                c.execute("update tenants set name = name where tenant_id = %s", (tenant,))

    with ConnectionPool(url(), min_size=2, max_size=4, check=ConnectionPool.check_connection, timeout=20) as pool:
        pool.wait(20)
        workers = [threading.Thread(target=work, args=(n,)) for n in range(4)]
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join()
    equal(wrong, [])


@check
def server_side_cursors_within_a_transaction():
    tenant = tenants(1, 1)[0]
    sql = "select task_id from tasks where tenant_id = %s order by 1"
    there = direct[1].execute(sql, (tenant,)).fetchall()
    with connect(autocommit=False) as c:
        with c.cursor(name="tasks") as cursor:
            cursor.itersize = 7
            cursor.execute(sql, (tenant,))
            equal(list(cursor), there)
        c.rollback()
        equal(list(c.cursor().stream(sql, (tenant,))), there)


@check
def catalogs_are_those_of_home():
    with connect() as c:
        for name in ("mood", "text", "int8range", "no_such_type"):
            ours, theirs = TypeInfo.fetch(c, name), TypeInfo.fetch(direct[0], name)
            equal(ours and ours.oid, theirs and theirs.oid)
        equal(EnumInfo.fetch(c, "mood").labels, ["calm", "busy"])


@check
def sqlalchemy_reflects_and_works_by_tenant():
    import sqlalchemy as sa

    engines = [
        sa.create_engine(u.replace("postgres://", "postgresql+psycopg://"), pool_size=2, pool_pre_ping=True)
        for u in (url(), SHARDS[0])
    ]
    seen = []
    for engine in engines:
        inspector = sa.inspect(engine)
        tables = inspector.get_table_names()
        seen.append([
            tables, inspector.get_schema_names(), inspector.get_view_names(), str(inspector.get_columns("tasks")),
            inspector.get_pk_constraint("tasks"), str(inspector.get_foreign_keys("comments")),
            str(inspector.get_indexes("tasks")), str(inspector.get_unique_constraints("users")),
            str(inspector.get_check_constraints("tasks")), str(inspector.get_enums()), inspector.has_table("tenants"),
        ])
    for ours, theirs in zip(*seen):
        equal(ours, theirs)
    meta = sa.MetaData()
    notes = sa.Table("notes", meta, autoload_with=engines[0])
    tasks = sa.Table("tasks", meta, autoload_with=engines[0])
    for tenant in (tenants(0, 1)[0], tenants(1, 1)[0]):
        with engines[0].begin() as c:
            c.execute(sa.insert(notes), [{"tenant_id": tenant, "id": 600 + n, "body": "orm"} for n in range(5)])
            c.execute(sa.update(notes).where(notes.c.tenant_id == tenant, notes.c.id == 600).values(body="changed"))
            nested = c.begin_nested()
            c.execute(sa.delete(notes).where(notes.c.tenant_id == tenant))
            nested.rollback()
            got = c.execute(sa.select(sa.func.count()).select_from(notes).where(notes.c.tenant_id == tenant, notes.c.body == "orm")).scalar()
            equal(got, 4)
            joined = sa.select(tasks.c.title).where(tasks.c.tenant_id == tenant).order_by(tasks.c.task_id).limit(3)
            equal([r[0] for r in c.execute(joined)], [r[0] for r in owner(tenant).execute("select title from tasks where tenant_id = %s order by task_id limit 3", (tenant,))])
            c.execute(sa.delete(notes).where(notes.c.tenant_id == tenant, notes.c.id >= 600))
    for engine in engines:
        engine.dispose()


if __name__ == "__main__":
    main()
