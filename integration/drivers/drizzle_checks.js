// Drizzle over node-postgres: migrations, relational queries, prepared queries,
// upserts, transactions with savepoints, a pool.
'use strict'

const fs = require('node:fs')
const path = require('node:path')
const { Pool } = require('pg')
const { drizzle } = require('drizzle-orm/node-postgres')
const { migrate } = require('drizzle-orm/node-postgres/migrator')
const { readMigrationFiles } = require('drizzle-orm/migrator')
const { and, asc, count, desc, eq, gte, inArray, lt, relations, sql, sum } = require('drizzle-orm')
const pg = require('drizzle-orm/pg-core')

const url = process.argv[2]
const SHARDED = Boolean(process.env.KEYWAY_TEST_SHARDED)
const TENANTS = [1, 2, 3, 4, 5, 6, 7, 8]
const CHECK_MS_MAX = 40_000
const checks = []
const check = (name, run) => checks.push([name, run])
let current = 'start'
const see = (value) => console.log(`see ${current}: ${JSON.stringify(value)}`)

function equal(got, wanted, what = 'value') {
  if (JSON.stringify(got) !== JSON.stringify(wanted)) {
    throw new Error(`${what} is ${JSON.stringify(got)}, expected ${JSON.stringify(wanted)}`)
  }
}

async function fails(state, promise) {
  const error = await Promise.resolve(promise).then(() => null, (error) => error)
  if (!error) throw new Error(`no error, expected ${state}`)
  equal((error.cause ?? error).code, state, `SQLSTATE of ${(error.cause ?? error).message}`)
}

const dz = pg.pgSchema('dz')
const plans = dz.table('plans', { code: pg.text().primaryKey(), title: pg.text().notNull() })
const projects = dz.table('projects', {
  tenantId: pg.bigint('tenant_id', { mode: 'number' }).notNull(),
  id: pg.bigint({ mode: 'number' }).notNull(),
  name: pg.text().notNull(),
  budget: pg.numeric({ precision: 12, scale: 2 }),
  tags: pg.text().array(),
  details: pg.jsonb(),
  ref: pg.uuid(),
  created: pg.timestamp({ withTimezone: true }),
}, (t) => [pg.primaryKey({ columns: [t.tenantId, t.id] })])
const tasks = dz.table('tasks', {
  tenantId: pg.bigint('tenant_id', { mode: 'number' }).notNull(),
  id: pg.bigint({ mode: 'number' }).notNull(),
  projectId: pg.bigint('project_id', { mode: 'number' }).notNull(),
  title: pg.text().notNull(),
  done: pg.boolean().notNull().default(false),
  hours: pg.integer().notNull().default(0),
}, (t) => [pg.primaryKey({ columns: [t.tenantId, t.id] })])
const schema = {
  plans, projects, tasks,
  projectRelations: relations(projects, ({ many }) => ({ tasks: many(tasks) })),
  taskRelations: relations(tasks, ({ one }) => ({
    project: one(projects, { fields: [tasks.tenantId, tasks.projectId], references: [projects.tenantId, projects.id] }),
  })),
}

const pool = new Pool({ connectionString: url, max: 4 })
pool.on('error', () => {})
const db = drizzle(pool, { schema })

check('migrations_run_and_run_again', async () => {
  await db.execute(sql`drop schema if exists dz cascade`)
  await db.execute(sql`drop schema if exists drizzle cascade`)
  const folder = path.join(__dirname, 'drizzle')
  if (SHARDED) {
    // Drizzle's own runner puts all into one transaction, which schema changes on
    // shards can't be part of: statement by statement it is.
    for (const migration of readMigrationFiles({ migrationsFolder: folder })) {
      for (const statement of migration.sql) await db.execute(sql.raw(statement))
    }
  } else {
    await migrate(db, { migrationsFolder: folder })
    await migrate(db, { migrationsFolder: folder })
    see((await db.execute(sql`select count(*) from drizzle.__drizzle_migrations`)).rows)
  }
  const columns = sql`select table_name, column_name, data_type, is_nullable, column_default from information_schema.columns where table_schema = 'dz' order by 1, 2`
  see((await db.execute(columns)).rows)
})

check('rows_come_and_go', async () => {
  for (const t of TENANTS) {
    const row = {
      tenantId: t, id: 1, name: `project ${t}`, budget: '10.50', tags: ['a', 'b,c'], details: { k: [1, null, 'x'] },
      ref: '00000000-0000-0000-0000-00000000002a', created: new Date(Date.UTC(2026, 0, t)),
    }
    see(await db.insert(projects).values(row).returning())
    const many = Array.from({ length: 40 }, (_, n) => ({ tenantId: t, id: n + 1, projectId: 1, title: `task ${n + 1}` }))
    see((await db.insert(tasks).values(many)).rowCount)
    see(await db.insert(tasks).values({ ...many[0], title: 'again' })
      .onConflictDoUpdate({ target: [tasks.tenantId, tasks.id], set: { title: sql`excluded.title` } }).returning({ title: tasks.title }))
    see(await db.insert(tasks).values(many[1]).onConflictDoNothing().returning())
    // Their order is the plan's, which changes with the table's statistics.
    const byId = (rows) => rows.sort((a, b) => a.id - b.id)
    see(byId(await db.update(tasks).set({ hours: sql`${tasks.hours} + 1` }).where(and(eq(tasks.tenantId, t), lt(tasks.id, 5))).returning({ id: tasks.id, hours: tasks.hours })))
    see(byId(await db.delete(tasks).where(and(eq(tasks.tenantId, t), gte(tasks.id, 39))).returning({ id: tasks.id })))
  }
})

check('queries_of_one_tenant', async () => {
  for (const t of TENANTS) {
    see(await db.select().from(projects).where(eq(projects.tenantId, t)))
    see(await db.select({ name: projects.name, n: count(), hours: sum(tasks.hours) }).from(projects)
      .leftJoin(tasks, and(eq(tasks.tenantId, projects.tenantId), eq(tasks.projectId, projects.id)))
      .where(eq(projects.tenantId, t)).groupBy(projects.name))
    see(await db.$count(tasks, eq(tasks.tenantId, t)))
    const recent = db.$with('recent').as(db.select().from(tasks).where(eq(tasks.tenantId, t)).orderBy(desc(tasks.id)).limit(3))
    see(await db.with(recent).select({ id: recent.id }).from(recent).orderBy(asc(recent.id)))
    see(await db.selectDistinct({ done: tasks.done }).from(tasks).where(and(eq(tasks.tenantId, t), inArray(tasks.id, [1, 2, 3]))))
  }
})

check('relational_queries', async () => {
  for (const t of TENANTS) {
    see(await db.query.tasks.findFirst({ where: eq(tasks.tenantId, t), orderBy: tasks.id, columns: { title: true }, limit: 1 }))
    const nested = db.query.projects.findMany({
      where: eq(projects.tenantId, t), columns: { name: true },
      with: { tasks: { columns: { id: true, title: true }, where: lt(tasks.id, 4), orderBy: tasks.id } },
    })
    see(await nested.catch((error) => (error.cause ?? error).message))
  }
})

check('prepared_queries_by_name', async () => {
  const one = db.select({ name: projects.name }).from(projects).where(eq(projects.tenantId, sql.placeholder('tenant'))).prepare('dz_one')
  for (let turn = 0; turn < 3; turn++) {
    await Promise.all(TENANTS.map(async (t) => equal(await one.execute({ tenant: t }), [{ name: `project ${t}` }])))
  }
  const many = db.select({ id: projects.tenantId }).from(projects).orderBy(projects.tenantId).limit(sql.placeholder('n')).prepare('dz_many')
  for (const n of [3, 5, 5]) see(await many.execute({ n }))
})

check('transactions_and_savepoints', async () => {
  for (const t of TENANTS) {
    for (const isolationLevel of ['read committed', 'repeatable read', 'serializable']) {
      const lost = db.transaction(async (tx) => {
        await tx.update(projects).set({ name: 'lost' }).where(eq(projects.tenantId, t))
        await fails('23505', tx.transaction((inner) => inner.insert(projects).values({ tenantId: t, id: 1, name: 'twice' })))
        see(await tx.select({ name: projects.name }).from(projects).where(eq(projects.tenantId, t)).for('update'))
        tx.rollback()
      }, { isolationLevel })
      equal(await lost.catch((error) => error.message), 'Rollback')
    }
    see(await db.select({ name: projects.name }).from(projects).where(eq(projects.tenantId, t)))
  }
  await fails('25006', db.transaction((tx) => tx.update(projects).set({ name: 'x' }).where(eq(projects.tenantId, 1)), { accessMode: 'read only' }))
})

check('reads_over_many_tenants', async () => {
  see(await db.select({ t: projects.tenantId, name: projects.name }).from(projects).orderBy(projects.tenantId).limit(5))
  const p = pg.alias(projects, 'p')
  see(await db.select({ t: p.tenantId, n: count() }).from(p).groupBy(p.tenantId).orderBy(p.tenantId))
  see(await db.select({ t: tasks.tenantId, id: tasks.id }).from(tasks).where(and(inArray(tasks.tenantId, [1, 2, 7]), lt(tasks.id, 3))).orderBy(tasks.tenantId, tasks.id))
  see(await db.transaction((tx) => tx.select({ t: projects.tenantId }).from(projects).orderBy(desc(projects.tenantId))))
})

check('many_clients_share_the_pool', async () => {
  const work = async (t, n) => db.transaction(async (tx) => {
    const [row] = await tx.select({ name: projects.name }).from(projects).where(eq(projects.tenantId, t))
    await tx.update(tasks).set({ hours: n }).where(and(eq(tasks.tenantId, t), eq(tasks.id, 1)))
    return row.name
  })
  const names = await Promise.all(TENANTS.flatMap((t) => Array.from({ length: 10 }, (_, n) => work(t, n))))
  equal(new Set(names).size, TENANTS.length)
})

if (!SHARDED) {
  check('tables_of_everybody', async () => {
    see(await db.insert(plans).values([{ code: 'free', title: 'Free' }, { code: 'team', title: 'Team' }]).returning())
    see(await db.query.plans.findMany({ orderBy: plans.code }))
    await db.execute(sql`refresh materialized view no_view`).catch((error) => see((error.cause ?? error).code))
  })
}

async function main() {
  let failed = 0
  for (const [name, run] of checks) {
    current = name
    let timer
    const late = new Promise((_, no) => (timer = setTimeout(() => no(new Error('still running')), CHECK_MS_MAX)))
    try {
      await Promise.race([run(), late])
      console.log(`ok ${name}`)
    } catch (error) {
      failed++
      const cause = error.cause ?? error
      const line = error.stack?.split('\n').find((l) => l.includes('drizzle_checks')) ?? ''
      console.log(`FAIL ${name}: ${cause.message.replace(/\s+/g, ' ')} ${cause.hint ?? ''} ${line.trim()}`)
    }
    clearTimeout(timer)
  }
  process.exit(failed ? 1 : 0)
}

main()
