"""psycopg 3: server-side binding, pipelines, COPY, cursors, cancel, pools."""

import threading
import time
from concurrent.futures import ThreadPoolExecutor

import psycopg
from psycopg import sql
from psycopg.rows import tuple_row
from psycopg_pool import ConnectionPool

from checks import check, equal, main, see, url


def connect(**options):
    options.setdefault("autocommit", True)
    return psycopg.connect(url(), connect_timeout=10, **options)


def table(connection, name, columns):
    connection.execute(sql.SQL("drop table if exists {}").format(sql.Identifier(name)))
    connection.execute(f"create table {name} ({columns})")


def fails(state, run):
    """The error that `run` must end with."""
    try:
        run()
    except psycopg.Error as error:
        equal(error.sqlstate, state, f"SQLSTATE of {error}")
        return error
    raise AssertionError(f"no error, expected {state}")


@check
def connection_tells_the_same():
    with connect(application_name="driver psycopg") as c:
        for name in ("server_version", "server_encoding", "client_encoding", "is_superuser", "session_authorization",
                     "DateStyle", "IntervalStyle", "TimeZone", "integer_datetimes", "standard_conforming_strings",
                     "application_name", "default_transaction_read_only", "in_hot_standby"):
            see(f"{name}={c.info.parameter_status(name)}")
        see(c.info.server_version)
        see(c.execute("select current_user, current_database(), current_schemas(true)::text").fetchone())
        see(c.execute("select application_name from pg_stat_activity where pid = pg_backend_pid()").fetchone())


@check
def parameters_and_results_in_both_formats():
    rows = [
        ("int2", -3), ("int4", 7), ("int8", 2**40), ("float8", 1.5), ("bool", True), ("text", "\u00e4\u20ac"),
        ("bytea", b"\0\xff"), ("numeric", "12.50"), ("uuid", "00000000-0000-0000-0000-00000000002a"),
        ("timestamptz", "2026-01-02 03:04:05+00"), ("int4[]", [1, None, 3]), ("jsonb", '{"a": [1, 2]}'),
        ("date", "2026-02-28"), ("interval", "1 day 02:00"), ("inet", "10.0.0.1"), ("text", None),
    ]
    with connect() as c:
        for binary in (False, True):
            with c.cursor(binary=binary) as cursor:
                for kind, value in rows:
                    cursor.execute(f"select %s::{kind}, %b::text", (value, "b"))
                    see(f"{kind} {binary} {cursor.fetchone()}")


@check
def prepared_statements_move_between_backends():
    connections = [connect(prepare_threshold=1) for _ in range(30)]
    for turn in range(4):
        for n, c in enumerate(connections):
            equal(c.execute("select %s::int + %s", (n, turn)).fetchone(), (n + turn,))
            equal(c.execute(f"select {n}, %s::text", ("x",), prepare=True).fetchone(), (n, "x"))
    for c in connections:
        c.close()


@check
def prepared_statements_by_the_hundreds():
    with connect() as c, connect() as other:
        c.prepared_max = 1000
        for turn in range(2):
            for n in range(250):
                equal(c.execute(f"select {n} + %s::int", (turn,), prepare=True).fetchone(), (n + turn,))
        see(c.execute("select count(*) from pg_prepared_statements").fetchone())
        equal(other.execute("select 1", prepare=True).fetchone(), (1,))
        see(other.execute("select count(*) from pg_prepared_statements").fetchone())
        c.execute("deallocate all")
        for n in range(5):
            equal(c.execute(f"select {n} + %s::int", (1,), prepare=True).fetchone(), (n + 1,))
    with connect() as c:
        # More than the driver keeps: it closes the oldest with Close or DEALLOCATE.
        c.prepared_max = 10
        for n in range(60):
            equal(c.execute(f"select {n} - %s::int", (1,), prepare=True).fetchone(), (n - 1,))
        c.execute("discard all")
        equal(c.execute("select 59 - %s::int", (1,), prepare=True).fetchone(), (58,))


@check
def prepared_statement_survives_ddl():
    with connect() as c, connect() as other:
        table(other, "d_psycopg_ddl", "a int")
        other.execute("insert into d_psycopg_ddl values (1)")
        equal(c.execute("select * from d_psycopg_ddl", prepare=True).fetchall(), [(1,)])
        other.execute("alter table d_psycopg_ddl add b int default 2")
        try:
            equal(c.execute("select * from d_psycopg_ddl", prepare=True).fetchall(), [(1, 2)])
        except psycopg.errors.FeatureNotSupported as error:
            if "cached plan must not change result type" not in str(error):
                raise
        c.execute("deallocate all")
        equal(c.execute("select * from d_psycopg_ddl", prepare=True).fetchall(), [(1, 2)])
        other.execute("drop table d_psycopg_ddl")


@check
def transactions_commit_and_roll_back():
    with connect(autocommit=False) as c, connect() as other:
        table(other, "d_psycopg_tx", "id int primary key")
        c.execute("insert into d_psycopg_tx values (1)")
        equal(other.execute("select count(*) from d_psycopg_tx").fetchone(), (0,), "uncommitted rows seen")
        c.commit()
        c.execute("insert into d_psycopg_tx values (2)")
        c.rollback()
        fails("23505", lambda: c.execute("insert into d_psycopg_tx values (1)"))
        fails("25P02", lambda: c.execute("select 1"))
        see(c.info.transaction_status)
        cursor = c.cursor()
        cursor.execute("commit")
        see(cursor.statusmessage)
        see(c.info.transaction_status)
        with c.transaction():
            c.execute("insert into d_psycopg_tx values (3)")
            try:
                with c.transaction():
                    c.execute("insert into d_psycopg_tx values (4)")
                    c.execute("select 1/0")
            except psycopg.errors.DivisionByZero:
                pass
            c.execute("insert into d_psycopg_tx values (5)")
        see(other.execute("select array_agg(id order by id) from d_psycopg_tx").fetchone())
        c.isolation_level = psycopg.IsolationLevel.SERIALIZABLE
        c.read_only = True
        fails("25006", lambda: c.execute("insert into d_psycopg_tx values (6)"))
        c.rollback()
        other.execute("drop table d_psycopg_tx")


@check
def two_phase_commit():
    with connect(autocommit=False) as c:
        xid = c.xid(1, "d_psycopg_gid", "branch")
        c.tpc_begin(xid)
        c.execute("create table d_psycopg_two (a int)")
        c.tpc_prepare()
        c.tpc_commit()
        c.execute("drop table d_psycopg_two")
        c.commit()
        c.tpc_begin(c.xid(1, "d_psycopg_gid", "again"))
        c.execute("select 1")
        c.tpc_prepare()
        with connect() as other:
            see([x.gtrid for x in other.tpc_recover() if x.gtrid == "d_psycopg_gid"])
        c.tpc_rollback()


@check
def pipeline_and_its_errors():
    with connect() as c:
        table(c, "d_psycopg_pipe", "id int primary key")
        with c.pipeline() as p:
            cursors = [c.execute("select %s::int", (n,)) for n in range(100)]
            p.sync()
            equal([cursor.fetchone()[0] for cursor in cursors], list(range(100)))
        with c.pipeline() as p:
            c.execute("insert into d_psycopg_pipe values (1)")
            p.sync()
            # The error comes out of whichever call reads it first.
            errors = []
            for run in (lambda: c.execute("insert into d_psycopg_pipe values (1)"),
                        lambda: c.execute("insert into d_psycopg_pipe values (2)"), p.sync,
                        lambda: c.execute("select 1").fetchone()):
                try:
                    run()
                except psycopg.Error as error:
                    errors.append(error.sqlstate)
            equal(errors[:1], ["23505"], "first error")
            p.sync()
            see(c.execute("select count(*) from d_psycopg_pipe").fetchone())

        def broken():
            with c.pipeline():
                with c.transaction():
                    c.execute("insert into d_psycopg_pipe values (10)")
                    c.execute("insert into d_psycopg_pipe values (1)")
                    c.execute("insert into d_psycopg_pipe values (11)")

        fails("23505", broken)
        see(c.info.transaction_status)
        see(c.execute("select array_agg(id) from d_psycopg_pipe").fetchone())
        with c.pipeline():
            c.cursor().executemany("insert into d_psycopg_pipe values (%s)", [(n,) for n in range(100, 400)])
        equal(c.execute("select count(*) from d_psycopg_pipe").fetchone(), (301,))
        cursor = c.cursor()
        cursor.executemany("select %s::int", [(n,) for n in range(5)], returning=True)
        results = [cursor.fetchone()]
        while cursor.nextset():
            results.append(cursor.fetchone())
        see(results)
        c.execute("drop table d_psycopg_pipe")


@check
def copy_in_and_out():
    with connect() as c:
        table(c, "d_psycopg_copy", "id int primary key, t text")
        with c.cursor() as cursor:
            with cursor.copy("copy d_psycopg_copy from stdin") as copy:
                for n in range(20_000):
                    copy.write_row((n, f"row {n}" if n % 7 else None))
            see(cursor.statusmessage)
            with cursor.copy("copy d_psycopg_copy from stdin (format binary)") as copy:
                copy.set_types(["int4", "text"])
                for n in range(20_000, 20_100):
                    copy.write_row((n, "binary"))
            total = 0
            with cursor.copy("copy (select * from d_psycopg_copy order by id) to stdout") as copy:
                for row in copy.rows():
                    total += int(row[0])
            equal(total, sum(range(20_100)))
            with cursor.copy("copy d_psycopg_copy to stdout (format binary)") as copy:
                see(sum(len(block) for block in copy))
            # The client stops reading in the middle.
            try:
                with cursor.copy("copy (select n, repeat('x', 100) from generate_series(1, 50000) n) to stdout") as copy:
                    next(iter(copy))
                    raise KeyError  # the driver cancels and drains
            except KeyError:
                pass
        see(c.execute("select count(*), count(t) from d_psycopg_copy").fetchone())


@check
def copy_that_fails():
    with connect() as c:
        table(c, "d_psycopg_copy", "id int primary key, t text")

        def client_aborts():
            with c.cursor().copy("copy d_psycopg_copy from stdin") as copy:
                copy.write_row((1, "x"))
                raise KeyError("the application changed its mind")

        def server_refuses():
            with c.cursor().copy("copy d_psycopg_copy from stdin") as copy:
                for n in range(50_000):
                    copy.write(f"{n if n != 100 else 'not a number'}\tx\n")

        def duplicate():
            with c.cursor().copy("copy d_psycopg_copy from stdin") as copy:
                copy.write("1\ta\n1\tb\n")

        try:
            client_aborts()
        except KeyError:
            pass
        fails("22P02", server_refuses)
        fails("23505", duplicate)
        fails("42P01", lambda: c.cursor().copy("copy d_psycopg_none from stdin").__enter__())
        see(c.info.transaction_status)
        with c.transaction(force_rollback=True):
            c.execute("select 1")
        see(c.execute("select count(*) from d_psycopg_copy").fetchone())
        c.execute("drop table d_psycopg_copy")


@check
def cancel_running_and_late():
    with connect() as c, connect() as other:
        for way in (c.cancel, c.cancel_safe):
            timer = threading.Timer(0.2, way)
            timer.start()
            fails("57014", lambda: c.execute("select pg_sleep(20)"))
            timer.join()
        with c.transaction():
            c.execute("select 1")
        waiting = threading.Thread(target=lambda: other.execute("select pg_sleep(0.6)"))
        waiting.start()
        for _ in range(5):
            c.cancel_safe()
            time.sleep(0.02)
        waiting.join()
        for _ in range(3):
            try:
                c.execute("select 1")
            except psycopg.errors.QueryCanceled:
                pass  # a late cancel may hit its own session's next statement
        equal(other.execute("select 2").fetchone(), (2,))
        c.execute("set statement_timeout = 100")
        fails("57014", lambda: c.execute("select pg_sleep(20)"))
        c.execute("set statement_timeout = 0")


@check
def settings_follow_the_client_only():
    with connect() as c, connect() as other:
        before = other.execute("select current_setting('search_path'), current_setting('timezone'), current_user").fetchone()
        c.execute("set search_path = pg_catalog, public")
        c.execute("set timezone = 'Asia/Tokyo'")
        c.execute("select set_config('application_name', %s, false)", ("psycopg set",))
        c.execute("set my.tenant = '42'")
        c.execute("set role d_role_one")
        for _ in range(10):
            see(c.execute("select current_setting('search_path'), current_setting('timezone'), current_user,"
                          " current_setting('application_name'), current_setting('my.tenant')").fetchone())
            got = other.execute("select current_setting('search_path'), current_setting('timezone'), current_user").fetchone()
            equal(got, before, "settings of the other client")
            equal(other.execute("select coalesce(current_setting('my.tenant', true), '')").fetchone(), ("",))
        see(c.execute("select '2026-01-01 00:00+00'::timestamptz").fetchone()[0].isoformat())
        with c.transaction():
            c.execute("set local timezone = 'UTC'")
            see(c.execute("show timezone").fetchone())
        see(c.execute("show timezone").fetchone())
        try:
            with c.transaction():
                c.execute("set timezone = 'Europe/Rome'")
                c.execute("reset role")
                raise KeyError
        except KeyError:
            pass
        see(c.execute("select current_setting('timezone'), current_user").fetchone())
        with c.transaction():
            c.execute("set timezone = 'Europe/Rome'")
            with c.transaction(force_rollback=True):
                c.execute("set timezone = 'Europe/Oslo'")
        see(c.execute("show timezone").fetchone())
        c.execute("reset role")
        c.execute("reset timezone")
        see(c.execute("select current_setting('timezone') = %s, current_user", (before[1],)).fetchone())
        c.execute("reset all")
        see(c.execute("show search_path").fetchone())
        c.execute("set session authorization default")
        fails("22023", lambda: c.execute("set timezone = 'Nowhere/Land'"))
        fails("42704", lambda: c.execute("set no_such_thing = 1"))
        fails("22023", lambda: c.execute("set role d_no_such_role"))
        c.execute("select set_config('timezone', 'Asia/Seoul', true)")
        see(c.execute("select current_setting('timezone') = %s", (before[1],)).fetchone())
    with psycopg.connect(url(), options="-c timezone=Asia/Kolkata -c my.startup=yes", autocommit=True) as c, connect() as other:
        other.execute("select 1")
        see(c.execute("select current_setting('timezone'), current_setting('my.startup')").fetchone())
        c.execute("set timezone = 'UTC'")
        c.execute("discard all")
        see(c.execute("show timezone").fetchone())


@check
def settings_made_inside_a_function():
    with connect() as c, connect() as other:
        before = other.execute("show timezone").fetchone()
        c.execute("do $$ begin perform set_config('timezone', 'Asia/Dubai', false); end $$")
        equal(other.execute("show timezone").fetchone(), before, "the other client's")
        see(c.execute("show timezone").fetchone())


@check
def notices_reach_their_client():
    with connect() as c, connect() as other:
        got = []
        c.add_notice_handler(lambda d: got.append((d.severity_nonlocalized, d.sqlstate, d.message_primary, d.message_hint)))
        other.add_notice_handler(lambda d: got.append("another client's notice"))
        for n in range(3):
            c.execute(f"do $$ begin raise notice 'n {n}'; raise warning 'w' using hint = 'h'; end $$")
            other.execute("select 1")
        c.execute("drop table if exists d_psycopg_none")
        c.execute("set client_min_messages = error")
        c.execute("do $$ begin raise warning 'unheard'; end $$")
        see(got)


@check
def several_statements_in_one_query():
    with connect() as c:
        table(c, "d_psycopg_multi", "a int")
        cursor = c.execute("select 1; select 2, 3; insert into d_psycopg_multi values (1)")
        results = []
        while True:
            results.append((cursor.statusmessage, cursor.fetchall() if cursor.description else None))
            if not cursor.nextset():
                break
        see(results)
        fails("22012", lambda: c.execute("insert into d_psycopg_multi values (2); select 1/0; insert into d_psycopg_multi values (3)"))
        see(c.execute("select array_agg(a) from d_psycopg_multi").fetchone())
        fails("42601", lambda: c.execute("select %s; select 2", (1,)))
        see(c.execute("").statusmessage)
        see(c.execute(" -- nothing").statusmessage)
        c.execute("drop table d_psycopg_multi")


@check
def server_side_cursors():
    with connect(autocommit=False) as c:
        with c.cursor("d_psycopg_cursor") as cursor:
            cursor.itersize = 300
            cursor.execute("select n from generate_series(1, %s) n", (2000,))
            equal(sum(row[0] for row in cursor), 2000 * 2001 // 2)
            cursor.execute("select n from generate_series(1, 10) n")
            cursor.scroll(5)
            see(cursor.fetchmany(2))
        c.commit()
        with c.cursor("d_psycopg_hold", withhold=True) as cursor:
            cursor.execute("select n from generate_series(1, 10) n")
            see(cursor.fetchmany(3))
            c.commit()
            with connect() as other:
                other.execute("select 1")
            see(cursor.fetchmany(3))
            c.rollback()
            see(cursor.fetchall())
    with connect() as c:
        fails("34000", lambda: c.execute("fetch 1 from d_psycopg_hold"))


@check
def streamed_rows():
    with connect() as c:
        total = 0
        for row in c.cursor().stream("select n from generate_series(1, 3000) n"):
            total += row[0]
        equal(total, 3000 * 3001 // 2)
        for row in c.cursor().stream("select n, repeat('x', 1000) from generate_series(1, 20000) n"):
            break  # the rest is cancelled or drained by the driver
        equal(c.execute("select 1").fetchone(), (1,))


@check
def temp_tables_locks_sequences():
    with connect() as c, connect() as other:
        c.execute("create temp table d_psycopg_temp (a int)")
        other.execute("select 1")
        c.execute("insert into d_psycopg_temp values (1)")
        fails("42P01", lambda: other.execute("select * from d_psycopg_temp"))
        see(c.execute("select * from d_psycopg_temp").fetchall())
        with c.transaction():
            c.execute("create temp table d_psycopg_drop (a int) on commit drop")
            c.execute("insert into d_psycopg_drop values (1)")
        see(c.execute("select pg_advisory_lock(88001)").fetchone())
        equal(other.execute("select pg_try_advisory_lock(88001)").fetchone(), (False,))
        with c.transaction():
            c.execute("select pg_advisory_xact_lock(88002)")
            equal(other.execute("select pg_try_advisory_lock(88002)").fetchone(), (False,))
        see(c.execute("select pg_advisory_unlock(88001)").fetchone())
        equal(other.execute("select pg_try_advisory_lock(88001)").fetchone(), (True,))
        c.execute("drop sequence if exists d_psycopg_seq")
        c.execute("create sequence d_psycopg_seq")
        with c.transaction():
            see(c.execute("select nextval('d_psycopg_seq')").fetchone())
            see(c.execute("select currval('d_psycopg_seq'), lastval()").fetchone())
        c.execute("drop sequence d_psycopg_seq")
    with connect() as third:
        fails("42P01", lambda: third.execute("select * from d_psycopg_temp"))


@check
def listen_and_notify():
    with connect() as c, connect() as other:
        c.execute("listen d_psycopg")
        other.execute("select pg_notify('d_psycopg', 'one')")
        other.execute("notify d_psycopg, 'two'")
        see([(n.channel, n.payload) for n in c.notifies(timeout=5, stop_after=2)])
        with other.transaction():
            other.execute("notify d_psycopg, 'three'")
            see([n.payload for n in c.notifies(timeout=0.2)])
        see([n.payload for n in c.notifies(timeout=5, stop_after=1)])
        c.execute("unlisten *")
        other.execute("notify d_psycopg, 'four'")
        see([n.payload for n in c.notifies(timeout=0.2)])


@check
def large_results_and_parameters():
    with connect() as c:
        rows = c.execute("select n, md5(n::text) from generate_series(1, 100000) n").fetchall()
        equal((len(rows), rows[-1][0]), (100_000, 100_000))
        blob = bytes(range(256)) * 80_000
        for binary in (False, True):
            got = c.cursor(binary=binary).execute("select octet_length(%s), md5(%s)", (blob, blob[:1000])).fetchone()
            see(got)
        equal(c.cursor(binary=True).execute("select %s::bytea", (blob,)).fetchone()[0], blob, "20 MB there and back")


@check
def pool_with_more_clients_than_backends():
    with ConnectionPool(url(), min_size=4, max_size=40, timeout=20, kwargs={"autocommit": False, "prepare_threshold": 2}) as pool:
        with pool.connection() as c:
            c.execute("drop table if exists d_psycopg_pool")
            c.execute("create table d_psycopg_pool (worker int, turn int)")

        def work(worker):
            for turn in range(10):
                with pool.connection() as c:
                    c.execute("insert into d_psycopg_pool values (%s, %s)", (worker, turn))
                    if turn % 3 == 0:
                        c.execute("select pg_sleep(0.002)")
                    equal(c.execute("select max(turn) from d_psycopg_pool where worker = %s", (worker,)).fetchone(), (turn,))
                    if turn % 5 == 4:
                        c.rollback()

        with ThreadPoolExecutor(40) as threads:
            for done in [threads.submit(work, n) for n in range(40)]:
                done.result()
        with pool.connection() as c:
            see(c.execute("select count(*), count(distinct worker) from d_psycopg_pool").fetchone())
            c.execute("drop table d_psycopg_pool")


@check
def client_gone_in_a_transaction_leaves_nothing():
    with connect() as other:
        table(other, "d_psycopg_gone", "a int")
        for _ in range(5):
            c = connect(autocommit=False)
            c.execute("insert into d_psycopg_gone values (1)")
            c.pgconn.finish()
        for _ in range(100):
            if other.execute("select count(*) from pg_locks where relation = 'd_psycopg_gone'::regclass").fetchone() == (0,):
                break
            time.sleep(0.05)
        see(other.execute("select count(*) from d_psycopg_gone").fetchone())
        other.execute("drop table d_psycopg_gone")


@check
def protocol_3_2_is_accepted():
    with psycopg.connect(url(), max_protocol_version="3.2", autocommit=True) as c:
        timer = threading.Timer(0.2, c.cancel_safe)
        timer.start()
        fails("57014", lambda: c.execute("select pg_sleep(20)"))
        timer.join()
    try:
        psycopg.connect(url(), max_protocol_version="latest").close()
    except psycopg.Error as error:
        raise AssertionError(str(error)) from error


@check
def row_factories_and_types_of_the_catalog():
    with connect(row_factory=tuple_row) as c:
        c.execute("drop type if exists d_psycopg_mood")
        c.execute("create type d_psycopg_mood as enum ('low', 'high')")
        info = psycopg.types.TypeInfo.fetch(c, "d_psycopg_mood")
        see((info.name, info.regtype))
        c.execute("drop type d_psycopg_mood")
        see([d.name for d in c.execute("select 1 as a, 'b' as b").description])


main()
