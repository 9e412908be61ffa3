// node-postgres: pools, named statements, cursors, COPY streams, LISTEN.
'use strict'

const { pipeline } = require('node:stream/promises')
const { Readable, Writable } = require('node:stream')
const { Client, Pool, types } = require('pg')
const Cursor = require('pg-cursor')
const copy = require('pg-copy-streams')

const url = process.argv[2]
const chosen = process.argv.slice(3)
const CHECK_MS_MAX = 40_000
const checks = []
let current = 'start'

function check(name, run) {
  checks.push([name, run])
}

function see(value) {
  console.log(`see ${current}: ${typeof value === 'string' ? value : JSON.stringify(value)}`)
}

function equal(got, wanted, what = 'value') {
  if (JSON.stringify(got) !== JSON.stringify(wanted)) {
    throw new Error(`${what} is ${JSON.stringify(got)}, expected ${JSON.stringify(wanted)}`)
  }
}

async function fails(state, promise) {
  try {
    await promise
  } catch (error) {
    equal(error.code, state, `SQLSTATE of ${error.message}`)
    return error
  }
  throw new Error(`no error, expected ${state}`)
}

const sleep = (ms) => new Promise((done) => setTimeout(done, ms))

// Connects `count` clients, ends them whatever the body does.
async function withClients(count, body, options = {}) {
  const clients = []
  try {
    for (let n = 0; n < count; n++) {
      const client = new Client({ connectionString: url, ...options })
      client.on('error', () => {})
      await client.connect()
      clients.push(client)
    }
    return await body(...clients)
  } finally {
    await Promise.all(clients.map((client) => client.end().catch(() => {})))
  }
}

check('connection_tells_the_same', () =>
  withClients(
    1,
    async (c) => {
      const reported = {}
      c.connection.on('parameterStatus', (m) => (reported[m.parameterName] = m.parameterValue))
      const { rows } = await c.query("select current_user, current_database(), version(), current_setting('application_name') a")
      see(rows)
      await c.query("set application_name = 'node two'")
      see(reported)
    },
    { application_name: 'driver node' },
  ))

check('text_and_binary_results', () =>
  withClients(1, async (c) => {
    for (const binary of [false, true]) {
      const text = 'select $1::int4 a, $2::text b, $3::bool c, $4::float8 d, $5::bytea e, $6::int4[] f, null::text g'
      const { rows, fields } = await c.query({ text, values: [7, 'ä€', true, 1.5, Buffer.from([0, 255]), [1, 2]], binary })
      see(rows)
      see(fields.map((f) => [f.name, f.dataTypeID, f.format]))
    }
    equal(types.getTypeParser(23, 'text')('5'), 5)
    await fails('22P02', c.query('select $1::int', ['x']))
    await fails('08P01', c.query('select $1::int', [1, 2]))
    see((await c.query('select 1')).rows)
  }))

check('named_statements_of_two_clients_do_not_meet', () =>
  withClients(3, async (a, b, other) => {
    for (let turn = 0; turn < 10; turn++) {
      see((await a.query({ name: 'same', text: "select 'a' || $1 as v", values: [`${turn}`] })).rows)
      see((await b.query({ name: 'same', text: 'select $1::int * 2 as v', values: [turn] })).rows)
      await other.query('select 1')
    }
    await Promise.all([
      a.query('deallocate all').then(() => fails('26000', a.query({ name: 'same', text: "select 'a' || $1 as v", values: ['x'] }))),
      b.query({ name: 'same', text: 'select $1::int * 2 as v', values: [21] }).then((r) => equal(r.rows[0].v, 42)),
    ])
  }))

check('named_statements_by_the_hundreds', () =>
  withClients(2, async (a, b) => {
    for (let n = 0; n < 220; n++) {
      equal((await a.query({ name: `n${n}`, text: `select ${n} + $1::int as v`, values: [1] })).rows[0].v, n + 1)
      equal((await b.query({ name: `n${n}`, text: `select ${n} - $1::int as v`, values: [1] })).rows[0].v, n - 1)
    }
    for (let n = 219; n >= 0; n--) {
      equal((await a.query({ name: `n${n}`, text: `select ${n} + $1::int as v`, values: [5] })).rows[0].v, n + 5)
    }
  }))

check('queued_queries_keep_their_order', () =>
  withClients(1, async (c) => {
    const queries = []
    for (let n = 0; n < 200; n++) queries.push(c.query('select $1::int as v', [n]))
    queries.splice(100, 0, c.query('select 1/0').catch((e) => ({ rows: [{ v: e.code }] })))
    const got = (await Promise.all(queries)).map((r) => r.rows[0].v)
    equal(got.length, 201)
    equal(got[100], '22012')
    equal(got[200], 199)
  }))

check('transactions', () =>
  withClients(2, async (c, other) => {
    await c.query('drop table if exists d_node_tx; create table d_node_tx (id int primary key)')
    await c.query('begin')
    await c.query('insert into d_node_tx values ($1)', [1])
    equal((await other.query('select count(*)::int n from d_node_tx')).rows[0].n, 0)
    await c.query('savepoint s')
    const error = await fails('23505', c.query('insert into d_node_tx values ($1)', [1]))
    see([error.severity, error.constraint, error.table, error.schema, error.detail, error.routine])
    await fails('25P02', c.query('select $1::int', [1]))
    await c.query('rollback to s')
    await c.query('insert into d_node_tx values ($1)', [2])
    await c.query('commit')
    await c.query('begin')
    await fails('22012', c.query('select 1/0'))
    see((await c.query('commit')).command)
    see((await other.query('select array_agg(id) ids from d_node_tx')).rows)
    await c.query('drop table d_node_tx')
  }))

check('several_statements_and_empty_queries', () =>
  withClients(1, async (c) => {
    see((await c.query('select 1 a; select 2 b, 3 c; select 4 d where false')).map((r) => [r.command, r.rowCount, r.rows]))
    await c.query('drop table if exists d_node_multi; create table d_node_multi (a int)')
    await fails('22012', c.query('insert into d_node_multi values (1); select 1/0; insert into d_node_multi values (2)'))
    see((await c.query('select count(*)::int n from d_node_multi')).rows)
    see((await c.query('')).rows)
    see((await c.query({ text: '', values: [], name: 'empty' })).rows)
    await c.query('drop table d_node_multi')
  }))

check('cursors_read_with_row_limits', () =>
  withClients(2, async (c, other) => {
    const cursor = c.query(new Cursor('select n from generate_series(1, $1::int) n', [1000]))
    let total = 0
    for (;;) {
      const rows = await cursor.read(90)
      if (rows.length === 0) break
      total += rows.reduce((sum, r) => sum + r.n, 0)
    }
    equal(total, 500500)
    await c.query('begin')
    const early = c.query(new Cursor('select n from generate_series(1, 100) n'))
    see((await early.read(3)).map((r) => r.n))
    await other.query('select 1')
    see((await early.read(3)).map((r) => r.n))
    await early.close()
    see((await c.query("select 'after'")).rows)
    await c.query('rollback')
    const broken = c.query(new Cursor('select 10 / (5 - n) v from generate_series(1, 10) n'))
    see((await broken.read(2)).map((r) => r.v))
    await fails('22012', broken.read(5))
    see((await c.query("select 'alive'")).rows)
  }))

check('copy_streams_and_their_failures', () =>
  withClients(1, async (c) => {
    await c.query('drop table if exists d_node_copy; create table d_node_copy (id int primary key, t text)')
    const rows = (from, to, broken) =>
      Readable.from(
        (function* () {
          for (let n = from; n < to; n++) yield n === broken ? 'not a number\tx\n' : `${n}\trow ${n}\n`
        })(),
      )
    await pipeline(rows(0, 20_000), c.query(copy.from('copy d_node_copy from stdin')))
    let bytes = 0
    const count = new Writable({ write: (chunk, _, done) => ((bytes += chunk.length), done()) })
    await pipeline(c.query(copy.to('copy (select * from d_node_copy order by id) to stdout')), count)
    see(bytes)
    await fails('22P02', pipeline(rows(20_000, 21_000, 20_500), c.query(copy.from('copy d_node_copy from stdin'))))
    await fails('23505', pipeline(rows(5, 6), c.query(copy.from('copy d_node_copy from stdin'))))
    see((await c.query('select count(*)::int n from d_node_copy')).rows)
    await c.query('drop table d_node_copy')
  }))

check('cancel_and_timeouts', () =>
  withClients(2, async (c, other) => {
    const running = c.query('select pg_sleep(20)')
    await sleep(150)
    // The driver's CancelRequest, sent with this client's key on a new connection.
    const canceller = new Client({ connectionString: url })
    canceller.connection.on('error', () => {})
    canceller.connection.on('connect', () => canceller.connection.cancel(c.processID, c.secretKey))
    canceller.connection.connect(canceller.port, canceller.host)
    await fails('57014', running)
    canceller.connection.end()
    see((await c.query("select 'alive'")).rows)
    await c.query('set statement_timeout = 100')
    await fails('57014', c.query('select pg_sleep(20)'))
    await c.query('reset statement_timeout')
    see((await other.query('show statement_timeout')).rows)
  }))

check('settings_follow_the_client_only', () =>
  withClients(2, async (c, other) => {
    const before = (await other.query('show timezone')).rows
    await c.query("set timezone = 'Asia/Tokyo'; set search_path = pg_catalog")
    await c.query('set role d_role_one')
    for (let n = 0; n < 5; n++) {
      equal((await other.query('show timezone')).rows, before)
      equal((await other.query('select current_user = session_user as same')).rows, [{ same: true }])
      see((await c.query("select current_setting('timezone') tz, current_user, current_setting('search_path') sp")).rows)
    }
    await c.query('begin')
    await c.query("set local timezone = 'UTC'")
    await c.query("set intervalstyle = 'iso_8601'")
    await c.query('rollback')
    see((await c.query("select current_setting('timezone') tz, current_setting('intervalstyle') i")).rows)
    await c.query('discard all')
    see((await c.query("select current_setting('timezone') = $1 same, current_user = session_user u", [before[0].TimeZone])).rows)
  }))

check('notices_and_notifications', () =>
  withClients(2, async (c, other) => {
    const notices = []
    const heard = []
    c.on('notice', (m) => notices.push([m.severity, m.code, m.message]))
    c.on('notification', (m) => heard.push([m.channel, m.payload]))
    other.on('notice', () => notices.push("another client's notice"))
    await c.query("do $$ begin raise notice 'one'; end $$")
    await c.query('listen d_node')
    for (let n = 0; n < 3; n++) await other.query("select pg_notify('d_node', $1)", [`${n}`])
    for (let n = 0; n < 100 && heard.length < 3; n++) await sleep(20)
    see(heard)
    see(notices)
    await c.query('unlisten *')
  }))

check('large_results_and_parameters', () =>
  withClients(1, async (c) => {
    const { rows } = await c.query('select n, md5(n::text) from generate_series(1, 100000) n')
    equal([rows.length, rows[99_999].n], [100_000, 100_000])
    const blob = Buffer.alloc(20_000_000, 'keyway')
    see((await c.query('select octet_length($1::bytea) n, md5($1::bytea) m', [blob])).rows)
    const back = await c.query({ text: 'select $1::bytea as b', values: [blob] })
    equal(back.rows[0].b.equals(blob), true)
  }))

check('pool_with_more_clients_than_backends', async () => {
  const pool = new Pool({ connectionString: url, max: 40 })
  try {
    await pool.query('drop table if exists d_node_pool; create table d_node_pool (worker int, turn int)')
    const work = async (worker) => {
      for (let turn = 0; turn < 10; turn++) {
        const c = await pool.connect()
        try {
          await c.query('begin')
          await c.query({ name: 'insert', text: 'insert into d_node_pool values ($1, $2)', values: [worker, turn] })
          const { rows } = await c.query({ name: 'max', text: 'select max(turn) m from d_node_pool where worker = $1', values: [worker] })
          equal(rows[0].m, turn)
          await c.query('commit')
        } finally {
          c.release()
        }
      }
    }
    await Promise.all(Array.from({ length: 60 }, (_, n) => work(n)))
    see((await pool.query('select count(*)::int n, count(distinct worker)::int w from d_node_pool')).rows)
    await pool.query('drop table d_node_pool')
  } finally {
    await pool.end()
  }
})

check('what_holds_the_backend', () =>
  withClients(2, async (c, other) => {
    await c.query('create temp table d_node_temp (a int)')
    await other.query('select 1')
    await c.query('insert into d_node_temp values ($1)', [3])
    see((await c.query('select * from d_node_temp')).rows)
    await fails('42P01', other.query('select * from d_node_temp'))
    await c.query('select pg_advisory_lock(66001)')
    see((await other.query('select pg_try_advisory_lock(66001) got')).rows)
    await c.query('begin; declare d_node_hold cursor with hold for select n from generate_series(1, 5) n; commit')
    see((await c.query('fetch 2 from d_node_hold')).rows)
    see((await c.query('fetch 9 from d_node_hold')).rows)
    see((await c.query('close all')).command)
    see((await c.query('select pg_advisory_unlock_all()')).rows.length)
    see((await other.query('select pg_try_advisory_lock(66001) got')).rows)
    see((await other.query('select pg_advisory_unlock(66001) got')).rows)
  }))

check('statement_survives_ddl', () =>
  withClients(2, async (c, other) => {
    await other.query('drop table if exists d_node_ddl; create table d_node_ddl (a int); insert into d_node_ddl values (1)')
    const star = { name: 'star', text: 'select * from d_node_ddl' }
    see((await c.query(star)).rows)
    await other.query('alter table d_node_ddl add b int default 2')
    try {
      equal((await c.query(star)).rows, [{ a: 1, b: 2 }])
    } catch (error) {
      equal(error.code, '0A000')
    }
    see((await c.query('select * from d_node_ddl')).rows)
    await other.query('drop table d_node_ddl')
  }))

check('wrong_password_and_database', async () => {
  const parts = new URL(url)
  parts.password = 'wrong'
  await fails('28P01', new Client({ connectionString: parts.href }).connect())
  const other = new URL(url)
  other.pathname = '/no_such_database'
  await fails('3D000', new Client({ connectionString: other.href }).connect())
})

async function main() {
  let failed = 0
  for (const [name, run] of checks) {
    if (chosen.length > 0 && !chosen.includes(name)) continue
    current = name
    let timer
    const late = new Promise((_, reject) => {
      timer = setTimeout(() => reject(new Error(`still running after ${CHECK_MS_MAX} ms`)), CHECK_MS_MAX)
    })
    try {
      await Promise.race([run(), late])
      console.log(`ok ${name}`)
    } catch (error) {
      failed += 1
      console.log(`FAIL ${name}: ${String(error.message || error).replace(/\s+/g, ' ')} ${(error.stack || '').split('\n').find((l) => l.includes('node_checks.js')) || ''}`)
    }
    clearTimeout(timer)
  }
  process.exit(failed > 0 ? 1 : 0)
}

main()
