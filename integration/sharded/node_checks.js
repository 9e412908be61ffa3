// node-postgres on two shards: a pool, named statements, cursors, COPY, cancel.
'use strict'

const { pipeline } = require('node:stream/promises')
const { Readable, Writable } = require('node:stream')
const { Client, Pool } = require('pg')
const Cursor = require('pg-cursor')
const copy = require('pg-copy-streams')

const url = process.argv[2]
const shards = [process.env.KEYWAY_TEST_SHARD1, process.env.KEYWAY_TEST_SHARD2]
const PORT = "current_setting('port')::int as port"
const checks = []
const check = (name, run) => checks.push([name, run])

function equal(got, wanted, what = 'value') {
  if (JSON.stringify(got) !== JSON.stringify(wanted)) {
    throw new Error(`${what} is ${JSON.stringify(got)}, expected ${JSON.stringify(wanted)}`)
  }
}

async function fails(state, promise) {
  const error = await promise.then(() => null, (error) => error)
  if (!error) throw new Error(`no error, expected ${state}`)
  equal(error.code, state, `SQLSTATE of ${error.message}`)
  return error
}

async function withClient(connectionString, body) {
  const client = new Client({ connectionString })
  client.on('error', () => {})
  await client.connect()
  try {
    return await body(client)
  } finally {
    await client.end().catch(() => {})
  }
}

// Tenants of the sample with the port of their shard, by turns.
async function homes(count) {
  const text = `select tenant_id, ${PORT} from tenants where tenant_id <= 300 order by 1 limit $1`
  const lists = await Promise.all(shards.map((s) => withClient(s, (c) => c.query(text, [count]))))
  return lists[0].rows.flatMap((row, n) => [row, lists[1].rows[n]])
}

check('named_statement_serves_all_tenants', () =>
  withClient(url, async (c) => {
    for (const { tenant_id, port } of await homes(20)) {
      const text = `select ${PORT}, tenant_id from tenants where tenant_id = $1`
      equal((await c.query({ name: 'tenant', text, values: [tenant_id] })).rows, [{ port, tenant_id }])
      equal((await c.query(text, [Number(tenant_id)])).rows, [{ port, tenant_id }])
      equal((await c.query(text.replace('$1', tenant_id))).rows, [{ port, tenant_id }])
    }
  }))

check('keys_of_every_type', () =>
  withClient(url, async (c) => {
    const keys = {
      int2: [5, -5], int4: [70000, -1], int8: ['9007199254740993', 12], text: ['a', 'ä€'], varchar: ["it's", 'b'],
      uuid: ['00000000-0000-0000-0000-00000000002A', 'a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11'],
    }
    for (const [kind, values] of Object.entries(keys)) {
      for (const table of [`by_${kind}`, `part_${kind}`]) {
        for (const key of values) {
          await c.query(`insert into ${table} (k, n) values ($1, 70000)`, [key])
          const { rows } = await c.query(`select ${PORT} from ${table} where k = $1 and n = 70000`, [key])
          for (const shard of shards) {
            const [there] = await withClient(shard, async (d) =>
              (await d.query(`select count(*)::int as n, ${PORT} from ${table} where k = $1 and n = 70000`, [key])).rows)
            equal(there.n, there.port === rows[0].port ? 1 : 0, `rows of ${key} in ${table}`)
          }
          await c.query(`delete from ${table} where k = $1 and n = 70000`, [key])
        }
      }
    }
  }))

check('pool_of_many_tenants_in_transactions', async () => {
  const pool = new Pool({ connectionString: url, max: 4 })
  pool.on('error', () => {})
  try {
    await Promise.all((await homes(10)).map(async ({ tenant_id, port }) => {
      const c = await pool.connect()
      try {
        await c.query('BEGIN')
        await c.query('insert into notes (tenant_id, id) values ($1, 900)', [tenant_id])
        await c.query('SAVEPOINT s')
        await fails('22012', c.query('select 1 / (id - 900) from notes where tenant_id = $1', [tenant_id]))
        await c.query('ROLLBACK TO SAVEPOINT s')
        const seen = await c.query(`select ${PORT} from notes where tenant_id = $1 and id = 900`, [tenant_id])
        equal(seen.rows, [{ port }])
        await c.query('ROLLBACK')
        const { rows } = await c.query('select count(*)::int n from notes where tenant_id = $1 and id = 900', [tenant_id])
        equal(rows, [{ n: 0 }])
      } finally {
        c.release()
      }
    }))
  } finally {
    await pool.end()
  }
})

check('cursor_reads_in_parts', () =>
  withClient(url, async (c) => {
    const tenant = (await homes(1))[1].tenant_id
    const text = 'select task_id from tasks where tenant_id = $1 order by 1'
    const there = await withClient(shards[1], async (d) => (await d.query(text, [tenant])).rows)
    const cursor = c.query(new Cursor(text, [tenant]))
    const seen = []
    for (let rows = await cursor.read(6); rows.length; rows = await cursor.read(6)) seen.push(...rows)
    await cursor.close()
    equal(seen, there)
  }))

check('copy_both_ways', () =>
  withClient(url, async (c) => {
    const tenant = (await homes(1))[1].tenant_id
    const read = async (client, text) => {
      let out = ''
      const sink = new Writable({ write(part, _, done) { out += part; done() } })
      await pipeline(client.query(copy.to(text)), sink)
      return out
    }
    const text = `copy (select task_id, title from tasks where tenant_id = ${tenant} order by 1) to stdout`
    equal(await read(c, text), await withClient(shards[1], (d) => read(d, text)))
    await pipeline(Readable.from(['30000\tnode\n', '30001\tnode\n']), c.query(copy.from('copy audit.entries from stdin')))
    equal((await c.query("delete from audit.entries where what = 'node'")).rowCount, 2)
    await fails('0A000', pipeline(Readable.from([`${tenant}\t1\tx\n`]), c.query(copy.from('copy notes from stdin'))))
    equal((await c.query('select 1 as one')).rows, [{ one: 1 }])
  }))

check('refusals_carry_state_and_hint', () =>
  withClient(url, async (c) => {
    const scatter = await fails('0A000', c.query('select * from tasks for update'))
    if (!scatter.hint) throw new Error('no hint')
    await fails('0A000', c.query('update tasks set state = $1', ['done']))
    await fails('0A000', c.query('create temp view mine as select 1'))
    equal((await c.query('select $1::int as one', [1])).rows, [{ one: 1 }])
  }))

check('statement_timeout_on_either_shard', () =>
  withClient(url, async (c) => {
    await c.query("set statement_timeout = '300ms'")
    for (const { tenant_id } of await homes(1)) {
      await fails('57014', c.query('select pg_sleep(20) from tenants where tenant_id = $1', [tenant_id]))
    }
    await c.query('reset statement_timeout')
  }))

async function main() {
  let failed = 0
  for (const [name, run] of checks) {
    let timer
    const late = new Promise((_, no) => (timer = setTimeout(() => no(new Error('still running')), 40_000)))
    try {
      await Promise.race([run(), late])
      console.log(`ok ${name}`)
    } catch (error) {
      failed++
      console.log(`FAIL ${name}: ${error.message} ${error.stack?.split('\n').find((l) => l.includes('node_checks')) ?? ''}`)
    }
    clearTimeout(timer)
  }
  process.exit(failed ? 1 : 0)
}

main()
