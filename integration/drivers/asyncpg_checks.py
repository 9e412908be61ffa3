"""asyncpg: binary everything, numbered statement names that all clients share,
its own reset query, cursors with row limits, COPY, LISTEN, cancel by timeout.
"""

import asyncio
import datetime
import decimal
import uuid

import asyncpg

from checks import check, equal, main, see, url


async def connect(**options):
    return await asyncpg.connect(url(), timeout=10, **options)


async def fails(state, awaitable):
    """The error that the awaitable must end with."""
    try:
        await awaitable
    except asyncpg.PostgresError as error:
        equal(error.sqlstate, state, f"SQLSTATE of {error}")
        return error
    raise AssertionError(f"no error, expected {state}")


@check
async def connection_tells_the_same():
    c = await connect(server_settings={"application_name": "driver asyncpg", "search_path": "public", "jit": "off"})
    settings = c.get_settings()
    for name in ("application_name", "server_version", "server_encoding", "client_encoding", "TimeZone",
                 "is_superuser", "session_authorization", "integer_datetimes", "standard_conforming_strings"):
        see(f"{name}={getattr(settings, name, None)}")
    see(c.get_server_version())
    see(tuple(await c.fetchrow("select current_user::text, current_setting('jit'), current_setting('search_path')")))
    await c.close()


@check
async def binary_parameters_and_results():
    c = await connect()
    at = datetime.datetime(2026, 1, 2, 3, 4, 5, tzinfo=datetime.timezone.utc)
    for kind, value in (
        ("int2", -3), ("int4", 7), ("int8", 2**40), ("float4", 0.5), ("float8", 1.5), ("bool", True), ("text", "\u00e4\u20ac"),
        ("bytea", b"\0\xff"), ("numeric", decimal.Decimal("-12.5000")), ("uuid", uuid.UUID(int=42)), ("timestamptz", at),
        ("date", at.date()), ("interval", datetime.timedelta(days=1, seconds=2)), ("int4[]", [1, None, 3]),
        ("text[][]", [["a", "b"], ["c", "d"]]), ("jsonb", '{"a": 1}'), ("point", asyncpg.Point(1, 2)), ("varchar", None),
        ("int4range", asyncpg.Range(1, 5)), ("inet", "10.0.0.1"),
    ):
        see(f"{kind} {await c.fetchval(f'select $1::{kind}', value)!r}")
    see(await c.fetchval("select row(1, 'two', null::int)"))
    await fails("22012", c.fetch("select 1/$1::int", 0))
    try:
        await c.fetch("select $1::int", "not a number")
    except asyncpg.DataError as error:
        see(type(error).__name__)
    await c.close()


@check
async def statement_names_of_many_clients_are_equal():
    # Each connection numbers its statements from 1, so one name has many texts.
    connections = [await connect() for _ in range(25)]
    for turn in range(3):
        for n, c in enumerate(connections):
            equal(await c.fetchval(f"select {n} * 1000 + $1::int", turn), n * 1000 + turn)
    values = await asyncio.gather(*(c.fetchval(f"select {n} * 1000 + $1::int", 7) for n, c in enumerate(connections)))
    equal(values, [n * 1000 + 7 for n in range(25)])
    for c in connections:
        await c.close()


@check
async def statements_by_the_hundreds():
    c = await connect(statement_cache_size=0)
    statements = [await c.prepare(f"select {n} + $1::int", name=f"st{n}") for n in range(250)]
    other = await connect(statement_cache_size=20)
    for n in range(60):
        equal(await other.fetchval(f"select {n} - $1::int", 1), n - 1)  # evicts with Close
    for n in reversed(range(250)):
        equal(await statements[n].fetchval(1), n + 1)
    see(statements[0].get_parameters())
    see(statements[0].get_attributes())
    await c.execute("deallocate all")
    await fails("26000", statements[3].fetchval(1))
    equal(await c.fetchval("select 1"), 1)
    await other.close()
    await c.close()


@check
async def statement_survives_ddl():
    c, other = await connect(), await connect()
    await other.execute("drop table if exists d_asyncpg_ddl; create table d_asyncpg_ddl (a int); insert into d_asyncpg_ddl values (1)")
    equal([tuple(r) for r in await c.fetch("select * from d_asyncpg_ddl")], [(1,)])
    await other.execute("alter table d_asyncpg_ddl add b int default 2")
    # The driver itself prepares again after 0A000 when outside a transaction.
    equal([tuple(r) for r in await c.fetch("select * from d_asyncpg_ddl")], [(1, 2)])
    async with c.transaction():
        equal([tuple(r) for r in await c.fetch("select * from d_asyncpg_ddl where a = $1", 1)], [(1, 2)])
    await other.execute("alter table d_asyncpg_ddl alter b type text")
    async with c.transaction():
        try:
            equal([tuple(r) for r in await c.fetch("select * from d_asyncpg_ddl where a = $1", 1)], [(1, "2")])
        except asyncpg.InvalidCachedStatementError:
            pass
    equal([tuple(r) for r in await c.fetch("select * from d_asyncpg_ddl where a = $1", 1)], [(1, "2")])
    await other.execute("drop table d_asyncpg_ddl")
    await other.close()
    await c.close()


@check
async def transactions_and_savepoints():
    c, other = await connect(), await connect()
    await c.execute("drop table if exists d_asyncpg_tx; create table d_asyncpg_tx (id int primary key)")
    async with c.transaction():
        await c.execute("insert into d_asyncpg_tx values (1)")
        equal(await other.fetchval("select count(*) from d_asyncpg_tx"), 0)
        try:
            async with c.transaction():
                await c.execute("insert into d_asyncpg_tx values (2)")
                await c.execute("insert into d_asyncpg_tx values (1)")
        except asyncpg.UniqueViolationError as error:
            see((error.sqlstate, error.constraint_name, error.detail))
        await c.execute("insert into d_asyncpg_tx values (3)")
    await c.execute("begin")
    await fails("22012", c.fetchval("select 1/0"))
    await fails("25P02", c.fetchval("select 1"))
    await fails("25P02", c.fetchval("select $1::int", 1))
    see(await c.execute("commit"))
    see(await c.execute("rollback"))
    async with c.transaction(isolation="serializable", readonly=True, deferrable=True):
        see(await c.fetchval("show transaction_isolation"))
        see(await c.fetchval("select count(*) from d_asyncpg_tx"))
    see([tuple(r) for r in await other.fetch("select id from d_asyncpg_tx order by id")])
    await c.execute("drop table d_asyncpg_tx")
    await c.close()
    await other.close()


@check
async def executemany_and_its_errors():
    c = await connect()
    await c.execute("drop table if exists d_asyncpg_many; create table d_asyncpg_many (id int primary key, t text)")
    await c.executemany("insert into d_asyncpg_many values ($1, $2)", [(n, "x" * 100) for n in range(3000)])
    equal(await c.fetchval("select count(*) from d_asyncpg_many"), 3000)
    await fails("23505", c.executemany("insert into d_asyncpg_many values ($1, $2)", [(n, "y") for n in (5000, 5001, 1, 5002)]))
    equal(await c.fetchval("select count(*) from d_asyncpg_many"), 3000, "rows after a failed batch")
    rows = await c.fetchmany("insert into d_asyncpg_many values ($1, $2) returning id", [(n, "z") for n in range(9000, 9005)])
    see([r[0] for r in rows])
    await c.execute("drop table d_asyncpg_many")
    await c.close()


@check
async def cursors_with_row_limits():
    c = await connect()
    async with c.transaction():
        total = 0
        async for row in c.cursor("select n from generate_series(1, $1::int) n", 1000, prefetch=37):
            total += row[0]
        equal(total, 1000 * 1001 // 2)
        cursor = await c.cursor("select n from generate_series(1, 20) n")
        see([r[0] for r in await cursor.fetch(3)])
        see(await c.fetchval("select 'between'"))
        await cursor.forward(5)
        see([r[0] for r in await cursor.fetch(3)])
        see((await cursor.fetchrow())[0])
        see(len(await cursor.fetch(100)))
        statement = await c.prepare("select n from generate_series(1, 5) n")
        see([r[0] for r in await statement.fetch()])
        see([r[0] async for r in statement.cursor(prefetch=2)])
    await c.close()


@check
async def copy_records_and_queries():
    c = await connect()
    await c.execute("drop table if exists d_asyncpg_copy; create table d_asyncpg_copy (id int primary key, t text)")
    see(await c.copy_records_to_table("d_asyncpg_copy", records=[(n, f"r{n}") for n in range(30_000)]))
    got = bytearray()

    async def keep(data):
        got.extend(data)

    see(await c.copy_from_query("select * from d_asyncpg_copy where id < $1 order by id", 3, output=keep, format="csv"))
    see(bytes(got))
    see(await c.copy_from_table("d_asyncpg_copy", output=keep, format="binary"))
    see(len(got))

    async def rows(broken):
        for n in range(30_000, 30_500):
            yield b"not a number\tx\n" if n == broken else f"{n}\tx\n".encode()

    see(await c.copy_to_table("d_asyncpg_copy", source=rows(None)))
    await fails("22P02", c.copy_to_table("d_asyncpg_copy", source=rows(30_001)))
    await fails("23505", c.copy_records_to_table("d_asyncpg_copy", records=[(1, "again")]))

    async def raises():
        yield b"77777\tx\n"
        raise KeyError("the application changed its mind")

    try:
        await c.copy_to_table("d_asyncpg_copy", source=raises())
    except KeyError as error:
        see(error)

    async def refuses(_):
        raise KeyError("the reader changed its mind")

    try:
        await c.copy_from_query("select n, repeat('x', 100) from generate_series(1, 20000) n", output=refuses)
    except KeyError as error:
        see(error)
    see(await c.fetchval("select count(*) from d_asyncpg_copy"))
    await c.execute("drop table d_asyncpg_copy")
    await c.close()


@check
async def cancel_by_timeout_and_by_task():
    c, other = await connect(), await connect()
    for _ in range(3):
        try:
            await c.fetch("select pg_sleep(20)", timeout=0.1)
            raise AssertionError("no timeout")
        except asyncio.TimeoutError:
            pass
        equal(await c.fetchval("select 1"), 1)
    task = asyncio.ensure_future(c.fetch("select pg_sleep(20)"))
    await asyncio.sleep(0.1)
    task.cancel()
    try:
        await task
    except asyncio.CancelledError:
        pass
    equal(await c.fetchval("select 2"), 2)
    async with c.transaction():
        try:
            async with c.transaction():
                await c.fetch("select pg_sleep(20)", timeout=0.1)
        except asyncio.TimeoutError:
            pass
        equal(await c.fetchval("select 3"), 3)
    equal(await other.fetchval("select 4"), 4)
    await other.close()
    await c.close()


@check
async def cancelled_clients_harm_no_others():
    async def quiet():
        c = await connect()
        for _ in range(40):
            equal(await c.fetchval("select 5 from pg_sleep(0.005)"), 5)
        await c.close()

    async def noisy():
        c = await connect()
        for _ in range(10):
            try:
                await c.fetch("select pg_sleep(5)", timeout=0.03)
            except asyncio.TimeoutError:
                pass
            except asyncpg.InterfaceError:
                c = await connect()  # the driver gives up a connection cancelled in Parse
        await c.close()

    await asyncio.gather(*(quiet() for _ in range(10)), *(noisy() for _ in range(10)))


@check
async def settings_follow_the_client_only():
    c, other = await connect(), await connect()
    before = await other.fetchval("show timezone")
    await c.execute("set timezone = 'Asia/Tokyo'")
    await c.execute("set role d_role_two")
    await c.fetchval("select set_config('search_path', $1, false)", "pg_catalog")
    for _ in range(5):
        equal(tuple(await other.fetchrow("select current_setting('timezone'), current_user = session_user")), (before, True))
        see(tuple(await c.fetchrow("select current_setting('timezone'), current_user::text, current_setting('search_path')")))
    see(c.get_settings().TimeZone)
    await c.execute("reset all; reset role")
    see(await c.fetchval("select current_setting('timezone') = $1", before))
    await c.execute("set timezone = 'Asia/Tokyo'")
    await c.reset()
    see(await c.fetchval("select current_setting('timezone') = $1", before))
    tr = c.transaction()
    await tr.start()
    await c.execute("set timezone = 'Asia/Tokyo'")
    await c.execute("set local search_path = pg_catalog")
    await tr.rollback()
    see(await c.fetchval("select current_setting('timezone') = $1", before))
    see(await c.fetchval("show search_path"))
    await c.close()
    await other.close()


@check
async def notices_and_notifications():
    c, other = await connect(), await connect()
    notices, heard = [], asyncio.Queue()
    c.add_log_listener(lambda _, m: notices.append((m.severity_en, m.sqlstate, m.message)))
    await c.execute("do $$ begin raise notice 'one'; raise warning 'two'; end $$")

    def hear(_connection, _pid, channel, payload):
        heard.put_nowait((channel, payload))

    await c.add_listener("d_asyncpg", hear)
    for n in range(3):
        await other.execute("select pg_notify('d_asyncpg', $1)", f"payload {n}")
        see(await asyncio.wait_for(heard.get(), 5))
    await c.execute("notify d_asyncpg, 'self'")
    see(await asyncio.wait_for(heard.get(), 5))
    await c.remove_listener("d_asyncpg", hear)
    await asyncio.sleep(0.05)
    see(notices)
    await c.close()
    await other.close()


@check
async def several_statements_in_one_query():
    c = await connect()
    await c.execute("drop table if exists d_asyncpg_multi; create table d_asyncpg_multi (a int)")
    see(await c.execute("insert into d_asyncpg_multi values (1); insert into d_asyncpg_multi values (2), (3)"))
    await fails("22012", c.execute("insert into d_asyncpg_multi values (4); select 1/0; insert into d_asyncpg_multi values (5)"))
    see(await c.fetchval("select array_agg(a order by a) from d_asyncpg_multi"))
    await fails("42601", c.fetch("select 1; select 2"))
    await c.execute("drop table d_asyncpg_multi")
    await c.close()


@check
async def large_results_and_parameters():
    c = await connect()
    rows = await c.fetch("select n, md5(n::text) m from generate_series(1, 100000) n")
    equal((len(rows), rows[-1]["n"]), (100_000, 100_000))
    blob = bytes(range(256)) * 80_000
    equal(await c.fetchval("select $1::bytea", blob), blob, "20 MB there and back")
    equal(await c.fetchval("select 1"), 1)
    await c.close()


@check
async def what_holds_the_backend():
    c, other = await connect(), await connect()
    await c.execute("create temp table d_asyncpg_temp (a int)")
    await other.fetchval("select 1")
    await c.execute("insert into d_asyncpg_temp values ($1)", 7)
    see(await c.fetchval("select a from d_asyncpg_temp"))
    await fails("42P01", other.fetch("select * from d_asyncpg_temp"))
    await c.execute("select pg_advisory_lock(99001)")
    see(await other.fetchval("select pg_try_advisory_lock(99001)"))
    await c.reset()  # unlocks, closes cursors, unlistens, resets
    see(await other.fetchval("select pg_try_advisory_lock(99001)"))
    see(await other.fetchval("select pg_advisory_unlock(99001)"))
    await c.close()
    await other.close()


@check
async def pool_with_more_clients_than_backends():
    async with asyncpg.create_pool(url(), min_size=2, max_size=40) as pool:
        await pool.execute("drop table if exists d_asyncpg_pool; create table d_asyncpg_pool (worker int, turn int)")

        async def work(worker):
            for turn in range(10):
                async with pool.acquire() as c, c.transaction():
                    await c.execute("insert into d_asyncpg_pool values ($1, $2)", worker, turn)
                    if turn % 3 == 0:
                        await c.execute("select pg_sleep(0.002)")
                    equal(await c.fetchval("select max(turn) from d_asyncpg_pool where worker = $1", worker), turn)

        await asyncio.gather(*(work(n) for n in range(60)))
        see(tuple(await pool.fetchrow("select count(*), count(distinct worker) from d_asyncpg_pool")))
        await pool.execute("drop table d_asyncpg_pool")


@check
async def composite_and_enum_types_are_introspected():
    c = await connect()
    await c.execute("drop type if exists d_asyncpg_pair; create type d_asyncpg_pair as (a int, b text)")
    await c.execute("drop type if exists d_asyncpg_mood; create type d_asyncpg_mood as enum ('low', 'high')")
    see(tuple(await c.fetchval("select row(1, 'x')::d_asyncpg_pair")))
    see(await c.fetchval("select $1::d_asyncpg_mood", "high"))
    see(await c.fetchval("select $1::d_asyncpg_mood[]", ["high", "low"]))
    await c.execute("drop type d_asyncpg_pair; drop type d_asyncpg_mood")
    await c.close()


main()
