"""SQLAlchemy 2 as applications use it, over psycopg and asyncpg: the ORM with
relationships, upserts, streams, savepoints, pools, Alembic's migrations, and
reflection of what they made.
"""

import asyncio
import datetime
import os
import threading
import uuid

import sqlalchemy as sa
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from alembic.operations import Operations
from sqlalchemy import orm
from sqlalchemy.dialects import postgresql as pg
from sqlalchemy.ext.asyncio import AsyncSession, create_async_engine

from checks import check, equal, main, see, url

SHARDED = "KEYWAY_TEST_SHARDED" in os.environ
TENANTS = range(1, 9)


class Base(orm.DeclarativeBase):
    metadata = sa.MetaData(schema="sa")


class Plan(Base):
    __tablename__ = "plans"
    code: orm.Mapped[str] = orm.mapped_column(primary_key=True)
    title: orm.Mapped[str]


class Project(Base):
    __tablename__ = "projects"
    tenant_id: orm.Mapped[int] = orm.mapped_column(sa.BigInteger, primary_key=True, autoincrement=False)
    id: orm.Mapped[int] = orm.mapped_column(sa.BigInteger, sa.Identity(), primary_key=True)
    name: orm.Mapped[str]
    budget: orm.Mapped[float | None] = orm.mapped_column(sa.Numeric(12, 2))
    tags: orm.Mapped[list[str] | None] = orm.mapped_column(pg.ARRAY(sa.Text))
    details: orm.Mapped[dict | None] = orm.mapped_column(pg.JSONB)
    ref: orm.Mapped[uuid.UUID | None]
    created: orm.Mapped[datetime.datetime | None] = orm.mapped_column(sa.DateTime(timezone=True))
    tasks: orm.Mapped[list["Task"]] = orm.relationship(back_populates="project", order_by="Task.id", cascade="all, delete-orphan")


class Task(Base):
    __tablename__ = "tasks"
    __table_args__ = (
        sa.ForeignKeyConstraint(["tenant_id", "project_id"], ["sa.projects.tenant_id", "sa.projects.id"], ondelete="CASCADE"),
        sa.Index("tasks_by_project", "tenant_id", "project_id"),
        sa.UniqueConstraint("tenant_id", "title", name="one_title"),
        sa.CheckConstraint("hours >= 0", name="no_debt"),
        {"comment": "things; to do"},
    )
    tenant_id: orm.Mapped[int] = orm.mapped_column(sa.BigInteger, primary_key=True, autoincrement=False)
    id: orm.Mapped[int] = orm.mapped_column(sa.BigInteger, sa.Identity(), primary_key=True)
    project_id: orm.Mapped[int] = orm.mapped_column(sa.BigInteger)
    title: orm.Mapped[str]
    # asyncpg asks the catalogs about an enum within the transaction, and they
    # are the first shard's.
    state: orm.Mapped[str] = orm.mapped_column(sa.Enum("open", "done", name="state", schema="sa", native_enum=not SHARDED), server_default="open")
    hours: orm.Mapped[int] = orm.mapped_column(server_default="0")
    project: orm.Mapped[Project] = orm.relationship(back_populates="tasks")


def engine(**options):
    options.setdefault("pool_size", 2)
    options.setdefault("pool_pre_ping", True)
    return sa.create_engine(url().replace("postgres://", "postgresql+psycopg://"), **options)


def async_engine(**options):
    plain = url().replace("postgres://", "postgresql+asyncpg://").replace("?sslmode=disable", "")
    return create_async_engine(plain, connect_args={"ssl": False}, **options)


def fails(state, run):
    try:
        run()
    except sa.exc.DBAPIError as error:
        equal(getattr(error.orig, "sqlstate", None), state, f"SQLSTATE of {error.orig}")
        return error
    raise AssertionError(f"no error, expected {state}")


@check
def schema_is_made_from_the_models():
    e = engine()
    # Schema changes can't be part of a transaction on shards.
    with e.connect().execution_options(isolation_level="AUTOCOMMIT") as c:
        c.execute(sa.text("DROP SCHEMA IF EXISTS sa CASCADE"))
        c.execute(sa.schema.CreateSchema("sa"))
        Base.metadata.create_all(c)
        Base.metadata.create_all(c)
        Base.metadata.drop_all(c)
        see(sa.inspect(c).get_table_names("sa"))
        Base.metadata.create_all(c)
        see(sorted(sa.inspect(c).get_table_names("sa")))
    e.dispose()


@check
def migrations_of_alembic_run_one_after_the_other():
    e = engine()
    with e.connect().execution_options(isolation_level="AUTOCOMMIT") as c:
        options = {"transactional_ddl": False, "version_table_schema": "sa", "include_schemas": True}
        context = MigrationContext.configure(c, opts=options)
        op = Operations(context)
        op.add_column("tasks", sa.Column("due", sa.Date()), schema="sa")
        op.create_index("tasks_due", "tasks", ["tenant_id", "due"], schema="sa", postgresql_concurrently=True)
        op.alter_column("tasks", "title", type_=sa.String(200), schema="sa")
        op.execute("CREATE TYPE sa.mood AS ENUM ('calm')")
        op.execute("ALTER TYPE sa.mood ADD VALUE IF NOT EXISTS 'busy'")
        op.create_check_constraint("short", "tasks", "length(title) < 150", schema="sa")
        context._ensure_version_table()
        context.stamp(type("Scripts", (), {"_stamp_revs": lambda *_: []})(), "head")
        c.execute(context._version.insert().values(version_num="one"))
        see(context.get_current_heads())
        ours = MigrationContext.configure(c, opts=options | {"include_name": lambda n, kind, _: kind != "schema" or n == "sa"})
        see(sorted(str(d[0]) if isinstance(d, tuple) else str(d[0][0]) for d in compare_metadata(ours, Base.metadata)))
        op.drop_constraint("short", "tasks", schema="sa")
        op.drop_index("tasks_due", "tasks", schema="sa")
        op.drop_column("tasks", "due", schema="sa")
        op.alter_column("tasks", "title", type_=sa.String(), schema="sa")
        see(len(compare_metadata(ours, Base.metadata)))
    e.dispose()


@check
def inspector_reflects_it():
    e = engine()
    inspector = sa.inspect(e)
    for name in sorted(inspector.get_table_names("sa")):
        see(f"{name} {[(c['name'], str(c['type']), c['nullable'], c['default']) for c in inspector.get_columns(name, 'sa')]}")
        see(f"{name} {inspector.get_pk_constraint(name, 'sa')} {inspector.get_foreign_keys(name, 'sa')}")
        see(f"{name} {inspector.get_indexes(name, 'sa')} {inspector.get_unique_constraints(name, 'sa')}")
        see(f"{name} {inspector.get_check_constraints(name, 'sa')} {inspector.get_table_comment(name, 'sa')}")
    see(f"{inspector.get_enums('sa')} {inspector.get_view_names('sa')} {sorted(inspector.get_sequence_names('sa'))}")
    see("sa" in inspector.get_schema_names())
    meta = sa.MetaData()
    meta.reflect(e, schema="sa")
    see(sorted(meta.tables))
    e.dispose()


@check
def objects_and_their_relations():
    e = engine(echo=False)
    with orm.Session(e) as s:
        s.add(Plan(code="free", title="Free")) if not SHARDED else None
        s.commit()
    for tenant in TENANTS:
        with orm.Session(e, expire_on_commit=False) as s:
            project = Project(
                tenant_id=tenant, id=1, name=f"project {tenant}", budget=10.5, tags=["a", "b,c"], details={"k": [1, None, "x"]},
                ref=uuid.UUID(int=tenant), created=datetime.datetime(2026, 1, tenant, tzinfo=datetime.timezone.utc),
            )
            project.tasks = [Task(id=n, title=f"task {n}") for n in range(1, 21)]
            s.add(project)
            s.commit()
            s.expire_all()
            found = s.get(Project, (tenant, 1))
            see(f"{found.name} {found.budget} {found.tags} {found.details} {found.ref} {found.created} {len(found.tasks)}")
            found.tasks[0].state = "done"
            del found.tasks[-1]
            found.details = {"changed": True}
            s.flush()
            s.rollback()
            equal(s.get(Project, (tenant, 1)).details["k"], [1, None, "x"])
            s.commit()
    e.dispose()


@check
def loading_strategies():
    e = engine()
    with orm.Session(e) as s:
        for tenant in TENANTS:
            for option in (orm.joinedload(Project.tasks), orm.selectinload(Project.tasks), orm.subqueryload(Project.tasks)):
                query = sa.select(Project).where(Project.tenant_id == tenant).options(option)
                try:
                    projects = s.execute(query).unique().scalars().all()
                    see(f"{tenant} {[(p.id, len(p.tasks)) for p in projects]}")
                except sa.exc.DBAPIError as error:
                    see(f"{tenant} {error.orig}")
                    s.rollback()
                s.expire_all()
            rows = s.execute(
                sa.select(Project.name, sa.func.count(Task.id), sa.func.max(Task.title))
                .join(Project.tasks).where(Project.tenant_id == tenant).group_by(Project.name)
            ).all()
            see(rows)
            latest = sa.select(Task.id).where(Task.tenant_id == tenant).order_by(Task.id.desc()).limit(3)
            see(s.scalars(latest).all())
            ranked = sa.select(Task.id, sa.func.row_number().over(order_by=Task.id.desc())).where(Task.tenant_id == tenant).limit(2)
            see(s.execute(ranked).all())
            s.commit()
    e.dispose()


@check
def rows_go_in_by_many_and_by_upsert():
    e = engine()
    for tenant in TENANTS:
        with e.begin() as c:
            rows = [{"tenant_id": tenant, "project_id": 1, "title": f"bulk {n}", "id": 1000 + n} for n in range(1500)]
            back = c.execute(sa.insert(Task).returning(Task.id, sort_by_parameter_order=True), rows).all()
            equal([r[0] for r in back], [1000 + n for n in range(1500)])
            upsert = pg.insert(Task).values(tenant_id=tenant, id=1000, project_id=1, title="upserted")
            upsert = upsert.on_conflict_do_update(index_elements=["tenant_id", "id"], set_={"title": upsert.excluded.title})
            equal(c.execute(upsert.returning(Task.title)).scalar(), "upserted")
            nothing = pg.insert(Task).values(tenant_id=tenant, id=1001, project_id=1, title="no").on_conflict_do_nothing()
            equal(c.execute(nothing.returning(Task.id)).all(), [])
            changed = sa.update(Task).where(Task.tenant_id == tenant, Task.id >= 1000).values(hours=Task.hours + 1)
            equal(c.execute(changed).rowcount, 1500)
            many = sa.update(Task.__table__).where(Task.tenant_id == sa.bindparam("t"), Task.id == sa.bindparam("i")).values(hours=sa.bindparam("h"))
            c.execute(many, [{"t": tenant, "i": 1000 + n, "h": n} for n in range(20)])
            gone = sa.delete(Task).where(Task.tenant_id == tenant, Task.id >= 1000).returning(Task.id)
            equal(len(c.execute(gone).all()), 1500)
    e.dispose()


@check
def streams_and_server_side_cursors():
    e = engine()
    for tenant in (1, 2):
        with e.connect() as c:
            rows = c.execution_options(stream_results=True, yield_per=7).execute(sa.select(Task.id).where(Task.tenant_id == tenant).order_by(Task.id))
            equal([r[0] for r in rows], list(range(1, 21)))
        with orm.Session(e) as s:
            parts = s.scalars(sa.select(Task).where(Task.tenant_id == tenant).execution_options(yield_per=6)).partitions()
            see([len(p) for p in parts])
    e.dispose()


@check
def savepoints_and_isolation():
    e = engine()
    for level in ("READ COMMITTED", "REPEATABLE READ", "SERIALIZABLE"):
        with e.connect().execution_options(isolation_level=level) as c:
            for tenant in (1, 2, 3):
                with c.begin():
                    c.execute(sa.update(Project).where(Project.tenant_id == tenant).values(name="other"))
                    nested = c.begin_nested()
                    fails("23505", lambda: c.execute(sa.insert(Project).values(tenant_id=tenant, id=1, name="twice")))
                    nested.rollback()
                    see(c.execute(sa.text("SHOW transaction_isolation")).scalar())
                    locked = sa.select(Project.name).where(Project.tenant_id == tenant).with_for_update(nowait=True)
                    equal(c.execute(locked).scalar(), "other")
                    c.rollback()
                see(c.execute(sa.select(Project.name).where(Project.tenant_id == tenant)).scalar())
                c.rollback()
    with e.connect().execution_options(postgresql_readonly=True) as c:
        fails("25006", lambda: c.execute(sa.update(Project).where(Project.tenant_id == 1).values(name="x")))
    e.dispose()


@check
def reads_over_many_tenants():
    e = engine()
    with e.connect() as c:
        for turn in range(8):
            see(c.execute(sa.select(Project.tenant_id, Project.name).order_by(Project.tenant_id).limit(5)).all())
            p = sa.alias(Project.__table__)
            see(c.execute(sa.select(p.c.tenant_id, sa.func.count()).group_by(p.c.tenant_id).order_by(p.c.tenant_id)).all())
            see(c.execute(sa.select(Task.tenant_id, Task.id).where(Task.tenant_id.in_([1, 2, 7]), Task.id < 4).order_by(Task.tenant_id, Task.id)).all())
            c.rollback()
    e.dispose()


@check
def pool_that_is_shared_by_threads():
    e = engine(pool_size=2, max_overflow=1, pool_recycle=1, pool_timeout=30, pool_use_lifo=True)
    wrong = []

    def work(tenant):
        for n in range(20):
            with orm.Session(e) as s:
                name = s.scalar(sa.select(Project.name).where(Project.tenant_id == tenant))
                if name != f"project {tenant}":
                    wrong.append(name)
                s.execute(sa.update(Task).where(Task.tenant_id == tenant, Task.id == n).values(hours=n))
                s.commit() if n % 2 else s.rollback()

    threads = [threading.Thread(target=work, args=(t,)) for t in TENANTS]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    equal(wrong, [])
    e.dispose()


@check
async def asyncpg_engine_sees_the_same():
    e = async_engine(pool_size=3)

    async def work(tenant):
        seen = []
        for n in range(10):
            async with AsyncSession(e) as s:
                found = await s.execute(sa.select(Project).where(Project.tenant_id == tenant).options(orm.selectinload(Project.tasks)))
                project = found.scalar_one()
                seen.append((project.name, project.budget, project.tags, project.ref, len(project.tasks)))
                project.tasks[0].hours = n
                await s.commit()
                async with s.begin():
                    s.add(Task(tenant_id=tenant, id=500, project_id=1, title="flying"))
                    await s.flush()
                    try:
                        async with s.begin_nested():
                            await s.execute(sa.text("SELECT 1 / (id - 500) FROM sa.tasks WHERE tenant_id = :t AND id = 500"), {"t": tenant})
                    except sa.exc.DBAPIError as error:
                        equal(error.orig.sqlstate, "22012")
                    await s.delete(await s.get(Task, (tenant, 500)))
        return seen[0], len(set(map(str, seen)))

    for line in await asyncio.gather(*(work(t) for t in TENANTS)):
        see(line)
    async with e.connect() as c:
        names = await c.run_sync(lambda sync: sorted(sa.inspect(sync).get_table_names("sa")))
        see(names)
        see(await c.run_sync(lambda sync: sa.inspect(sync).get_foreign_keys("tasks", "sa")))
        stream = await c.stream(sa.select(Task.id).where(Task.tenant_id == 2).order_by(Task.id))
        see([row[0] async for row in stream])
        await c.rollback()
        see((await c.execute(sa.select(Project.tenant_id).order_by(Project.tenant_id))).all())
    await e.dispose()


@check
async def asyncpg_engine_after_a_schema_change():
    e = async_engine(pool_size=1, isolation_level="AUTOCOMMIT")
    async with e.connect() as c:
        for turn in range(2):
            rows = (await c.execute(sa.text("SELECT * FROM sa.projects WHERE tenant_id = :t"), {"t": 1})).all()
            see(len(rows[0]))
            await c.execute(sa.text(f"ALTER TABLE sa.projects ADD COLUMN extra{turn} int"))
            try:
                rows = (await c.execute(sa.text("SELECT * FROM sa.projects WHERE tenant_id = :t"), {"t": 1})).all()
                see(len(rows[0]))
            except sa.exc.DBAPIError as error:
                see(error.orig.sqlstate)
        for turn in range(2):
            await c.execute(sa.text(f"ALTER TABLE sa.projects DROP COLUMN extra{turn}"))
    await e.dispose()


if not SHARDED:

    @check
    def two_phase_transactions():
        e = engine()
        for end in ("commit", "rollback"):
            with e.connect() as c:
                transaction = c.begin_twophase(f"sa-{end}")
                c.execute(sa.update(Project).where(Project.tenant_id == 1).values(name="prepared"))
                transaction.prepare()
                getattr(transaction, end)()
            with e.connect() as c:
                see(c.execute(sa.select(Project.name).where(Project.tenant_id == 1)).scalar())
        e.dispose()


if __name__ == "__main__":
    main()
