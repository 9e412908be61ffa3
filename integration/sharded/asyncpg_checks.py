"""asyncpg on two shards: binary keys, its pool and reset query, type
introspection, cursors, batches, COPY, cancel by timeout.
"""

import asyncio
import os
import uuid

import asyncpg

from checks import check, equal, main, url

SHARDS = [os.environ["KEYWAY_TEST_SHARD1"], os.environ["KEYWAY_TEST_SHARD2"]]
PORT = "current_setting('port')::int"


async def connect(**options):
    return await asyncpg.connect(url(), timeout=10, **options)


async def homes(count):
    """Tenants of the sample with the port of their shard, by turns."""
    found = []
    for shard in SHARDS:
        c = await asyncpg.connect(shard)
        rows = await c.fetch(f"select tenant_id, {PORT} as port from tenants where tenant_id <= 300 order by 1 limit $1", count)
        found.append([(row["tenant_id"], row["port"]) for row in rows])
        await c.close()
    return [pair for both in zip(*found) for pair in both]


async def fails(state, awaitable):
    try:
        await awaitable
    except asyncpg.PostgresError as error:
        equal(error.sqlstate, state, f"SQLSTATE of {error}")
        return error
    raise AssertionError(f"no error, expected {state}")


@check
async def one_prepared_statement_serves_all_tenants():
    c = await connect()
    statement = await c.prepare(f"select {PORT}, tenant_id, name from tenants where tenant_id = $1")
    for tenant, port in await homes(25):
        equal(tuple(await statement.fetchrow(tenant))[:2], (port, tenant))
        equal(await c.fetchval(f"select {PORT} from tasks where tenant_id = $1 limit 1", tenant), port)
    equal(statement.get_parameters()[0].name, "int8")
    await c.close()


@check
async def keys_of_every_type_in_binary():
    keys = {
        "int2": [0, -7, 32767], "int4": [1, 2**31 - 1, -9], "int8": [2**62, -1, 11], "text": ["", "\u00e4b", "x'y"],
        "varchar": ["v", "caf\u00e9"], "uuid": [uuid.UUID(int=n * 11**37 % 2**128) for n in range(1, 5)],
    }
    c = await connect()
    shards = [await asyncpg.connect(s) for s in SHARDS]
    for kind, values in keys.items():
        for table in (f"by_{kind}", f"part_{kind}"):
            for key in values:
                await c.execute(f"insert into {table} (k, n, note) values ($1, 80000, $2)", key, "bin")
                port = await c.fetchval(f"select {PORT} from {table} where k = $1 and n = 80000", key)
                for shard in shards:
                    there = await shard.fetchval(f"select count(*) from {table} where k = $1 and n = 80000", key)
                    equal(there, int(await shard.fetchval(f"select {PORT}") == port), f"rows of {key!r}")
                await c.execute(f"delete from {table} where n = 80000 and k = $1", key)
    for connection in [c, *shards]:
        await connection.close()


@check
async def pool_with_its_reset_query():
    async with asyncpg.create_pool(url(), min_size=2, max_size=4, timeout=10) as pool:

        async def work(tenant, port):
            async with pool.acquire() as c, c.transaction():
                await c.execute("set local work_mem = '5MB'")
                await c.execute("insert into notes (tenant_id, id) values ($1, 700)", tenant)
                equal(await c.fetchval(f"select {PORT} from notes where tenant_id = $1 and id = 700", tenant), port)
                try:
                    async with c.transaction():
                        await c.execute("delete from notes where tenant_id = $1", tenant)
                        raise ValueError
                except ValueError:
                    pass
                equal(await c.fetchval("select count(*) from notes where tenant_id = $1 and id = 700", tenant), 1)
                await c.execute("delete from notes where tenant_id = $1 and id = 700", tenant)

        pairs = await homes(10)
        await asyncio.gather(*(work(*pair) for pair in pairs))
        equal(await pool.fetchval("select 1"), 1)


@check
async def types_are_introspected():
    c = await connect()
    equal(await c.fetchval("select 'calm'::mood"), "calm")
    equal(await c.fetchval("select array['calm', 'busy']::mood[]"), ["calm", "busy"])
    tenant = (await homes(1))[1][0]
    row = await c.fetchrow("select settings, 'busy'::mood m from projects where tenant_id = $1 limit 1", tenant)
    equal(row["m"], "busy")
    await c.close()


@check
async def types_are_introspected_within_a_transaction():
    for tenant, port in await homes(1):
        c = await connect()  # knows no types, and turns jit off while it asks for them
        async with c.transaction():
            # The questions about types set a setting, and need the shard to be known.
            equal(await c.fetchval(f"select {PORT} from tenants where tenant_id = $1", tenant), port)
            row = await c.fetchrow(f"select 'busy'::mood m, {PORT} p from tenants where tenant_id = $1", tenant)
            equal((row["m"], row["p"]), ("busy", port))
            equal(await c.fetchval("select array['calm']::mood[] from tenants where tenant_id = $1", tenant), ["calm"])
        await c.close()


@check
async def types_have_other_numbers_on_each_shard():
    for shard, before in zip(SHARDS, (0, 3)):
        there = await asyncpg.connect(shard)
        await there.execute("drop schema if exists numbers cascade; create schema numbers")
        for n in range(before):
            await there.execute(f"create type numbers.before_{n} as enum ('x')")
        await there.close()
    c = await connect()
    await c.execute("create type numbers.kind as enum ('calm', 'busy')")
    await c.execute("create type numbers.place as (street text, kind numbers.kind, kinds numbers.kind[])")
    home = await c.fetchval("select oid from pg_type where typname = 'place' and typnamespace = 'numbers'::regnamespace")
    pairs = await homes(2)
    for tenant, _ in pairs:
        # Until the router has read the shards' types again, it calls them unknown.
        while True:
            [column] = (await c.prepare(f"select null::numbers.place from tenants where tenant_id = {tenant}")).get_attributes()
            if column.type.oid == home:
                break
            equal(column.type.oid, 705, "a type that is not known yet")
            await asyncio.sleep(0.05)
    await c.close()
    place = ("High Street", "busy", ["calm", "busy"])
    sql = f"select $2::numbers.place p, array[$2::numbers.place] ps, 'calm'::numbers.kind k, {PORT} from tenants where tenant_id = $1"

    async def ask(c, tenant, port):
        row = await c.fetchrow(sql, tenant, place)
        equal((tuple(row["p"]), [tuple(p) for p in row["ps"]], row["k"], row[3]), (place, [place], "calm", port))

    for turned in (pairs, pairs[::-1]):
        c = await connect()
        for tenant, port in turned:
            await ask(c, tenant, port)
        await c.close()
    for tenant, port in pairs[:2]:
        c = await connect()
        async with c.transaction():
            # The questions about types set a setting, and need the shard to be known.
            await c.fetchval("select 1 from tenants where tenant_id = $1", tenant)
            await ask(c, tenant, port)
        await c.close()
    for shard in SHARDS:
        there = await asyncpg.connect(shard)
        await there.execute("drop schema numbers cascade")
        await there.close()


@check
async def batches_and_cursors():
    (one, _), (two, port) = await homes(1)
    c = await connect()
    await c.executemany("insert into notes (tenant_id, id, body) values ($1, $2, $3)", [(two, 800 + n, "b") for n in range(50)])
    equal(await c.fetchval("select count(*) from notes where tenant_id = $1 and id >= 800", two), 50)
    await fails("0A000", c.executemany("insert into notes (tenant_id, id) values ($1, $2)", [(one, 1), (two, 1)]))
    equal(await c.fetchval("select count(*) from notes where tenant_id = $1 and id = 1", one), 0)
    async with c.transaction():
        seen = [row["id"] async for row in c.cursor("select id from notes where tenant_id = $1 and id >= 800 order by id", two, prefetch=7)]
    equal(seen, list(range(800, 850)))
    await c.execute("delete from notes where tenant_id = $1 and id >= 800", two)
    await c.close()


@check
async def copy_both_ways():
    import io
    (_, _), (two, _) = await homes(1)
    c, there = await connect(), await asyncpg.connect(SHARDS[1])
    outs = []
    for connection in (c, there):
        out = io.BytesIO()
        await connection.copy_from_query("select task_id, title from tasks where tenant_id = $1 order by 1", two, output=out)
        outs.append(out.getvalue())
    equal(outs[0], outs[1])
    await c.copy_records_to_table("entries", schema_name="audit", records=[(20_000 + n, "asyncpg") for n in range(20)])
    equal(await there.fetchval("select count(*) from audit.entries where what = 'asyncpg'"), 20)
    await c.execute("delete from audit.entries where what = 'asyncpg'")
    error = await fails("0A000", c.copy_records_to_table("notes", records=[(two, 1, "x")]))
    equal("INSERT" in error.hint, True)
    equal(await c.fetchval("select 1"), 1)
    await c.close()
    await there.close()


@check
async def timeouts_cancel_on_the_right_shard():
    c = await connect()
    for tenant, _ in await homes(1):
        try:
            await c.fetchval("select pg_sleep(20) from tenants where tenant_id = $1", tenant, timeout=0.4)
            raise AssertionError("no timeout")
        except asyncio.TimeoutError:
            pass
        equal(await c.fetchval("select tenant_id from tenants where tenant_id = $1", tenant), tenant)
    await c.close()


if __name__ == "__main__":
    main()
