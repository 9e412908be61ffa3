"""Django as applications use it: migrations of its own apps and of ours, the ORM
with keys of two columns, transactions, iterators, sessions and users, its pool,
and inspectdb.
"""

import datetime
import io
import os
import threading
import uuid
from decimal import Decimal
from urllib.parse import urlsplit

import django
from django.conf import settings

from checks import check, equal, main, see, url

SHARDED = "KEYWAY_TEST_SHARDED" in os.environ
place = urlsplit(url())
database = {
    "ENGINE": "django.db.backends.postgresql", "NAME": place.path[1:], "USER": place.username, "PASSWORD": place.password,
    "HOST": place.hostname, "PORT": place.port, "CONN_MAX_AGE": 60, "CONN_HEALTH_CHECKS": True,
    # As behind every pooler by transaction: cursors WITH HOLD would keep backends.
    "DISABLE_SERVER_SIDE_CURSORS": SHARDED,
}
pooled = database | {"OPTIONS": {"pool": {"min_size": 1, "max_size": 3}}, "CONN_MAX_AGE": 0, "CONN_HEALTH_CHECKS": False}
bound = database | {"OPTIONS": {"server_side_binding": True}}
settings.configure(
    DATABASES={"default": database, "pooled": pooled, "bound": bound},
    INSTALLED_APPS=["django.contrib.contenttypes", "django.contrib.auth", "django.contrib.sessions", "django_app"],
    DEFAULT_AUTO_FIELD="django.db.models.BigAutoField", USE_TZ=True, SECRET_KEY="driver tests",
    PASSWORD_HASHERS=["django.contrib.auth.hashers.MD5PasswordHasher"],
)
django.setup()

from django.core.management import call_command  # noqa: E402
from django.db import DatabaseError, IntegrityError, connection, connections, models, transaction  # noqa: E402
from django.db.models import Count, Exists, F, Max, OuterRef, Q, Subquery, Sum, Window  # noqa: E402
from django.db.models.functions import Lower, RowNumber  # noqa: E402

from django_app.models import Plan, Project, Task  # noqa: E402

if SHARDED:
    # Schema changes can't be part of a transaction on shards.
    connection.features.can_rollback_ddl = False

TENANTS = range(1, 9)
TABLES = """dj_task dj_project dj_plan django_session auth_user_user_permissions auth_user_groups auth_group_permissions
auth_user auth_group auth_permission django_content_type django_migrations""".split()


def command(*words, **options):
    out = io.StringIO()
    call_command(*words, stdout=out, stderr=out, **options)
    return out.getvalue()


def save_all(tasks, **options):
    """The rows of each tenant at once: a statement's rows are of one shard."""
    for tenant in sorted({task.tenant_id for task in tasks}):
        Task.objects.bulk_create([task for task in tasks if task.tenant_id == tenant], **options)


def of(tenant, model=Project):
    return model.objects.filter(tenant_id=tenant)


@check
def migrations_run_from_nothing():
    with connection.cursor() as cursor:
        for table in TABLES:
            cursor.execute(f"DROP TABLE IF EXISTS {table} CASCADE")
    see(command("migrate", verbosity=1, interactive=False))
    see(command("migrate", verbosity=1, interactive=False))
    see(command("showmigrations"))
    see(command("makemigrations", "--check", "--dry-run"))


@check
def migration_goes_back_and_forth():
    see(command("migrate", "django_app", "0001", verbosity=1))
    see("hours" in [c.name for c in connection.introspection.get_table_description(connection.cursor(), "dj_task")])
    see(command("migrate", "django_app", verbosity=1))
    see(command("sqlmigrate", "django_app", "0002"))


@check
def database_is_inspected():
    for table in TABLES[:3]:
        see(command("inspectdb", table))
    with connection.cursor() as cursor:
        see(sorted((k, v["columns"], v["primary_key"], v["unique"], v["foreign_key"]) for k, v in connection.introspection.get_constraints(cursor, "dj_task").items()))
        see(sorted(t.name for t in connection.introspection.get_table_list(cursor) if t.name.startswith("dj_")))
        see(connection.introspection.get_sequences(cursor, "dj_task"))


@check
def objects_come_and_go():
    for tenant in TENANTS:
        project = Project.objects.create(
            tenant_id=tenant, id=1, name=f"project {tenant}", budget=Decimal("10.50"), tags=["a", "b,c"], details={"k": [1, None, "x"]},
            ref=uuid.UUID(int=tenant), created=datetime.datetime(2026, 1, tenant, tzinfo=datetime.timezone.utc),
        )
        save_all([Task(tenant_id=tenant, id=n, project_id=1, title=f"task {n}") for n in range(1, 61)], batch_size=100)
        found = Project.objects.get(pk=(tenant, 1))
        see([found.name, found.budget, found.tags, found.details, found.ref, found.created.isoformat()])
        found.name = "renamed"
        found.save(update_fields=["name"])
        project.refresh_from_db()
        equal(project.name, "renamed")
        of(tenant).update(name=f"project {tenant}", budget=F("budget") + 1)
        see(of(tenant).values_list("name", "budget").get())
        made, new = Project.objects.get_or_create(tenant_id=tenant, id=2, defaults={"name": "second"})
        again, new_again = Project.objects.update_or_create(tenant_id=tenant, id=2, defaults={"name": "second again"})
        equal((new, new_again, again.name), (True, False, "second again"))
        see(again.delete())


@check
def queries_of_one_tenant():
    for tenant in TENANTS:
        tasks = of(tenant, Task)
        see(tasks.aggregate(Count("id"), Max("title"), Sum("hours")))
        see(list(tasks.filter(Q(title__icontains="task 1") | Q(id__in=[5, 6]), done=False).order_by("-id").values_list("id", flat=True)[:7]))
        see(list(of(tenant).annotate(n=Count("tasks")).values_list("name", "n")))
        see([(t.id, t.project.name) for t in tasks.select_related("project").order_by("id")[:3]])
        see([(p.name, len(p.tasks.all())) for p in of(tenant).prefetch_related(models.Prefetch("tasks", tasks.filter(id__lt=9)))])
        see(list(of(tenant).filter(Exists(tasks.filter(project_id=OuterRef("id"), id=7))).values_list("id")))
        newest = tasks.filter(project_id=OuterRef("id")).order_by("-id").values("title")[:1]
        see(list(of(tenant).annotate(newest=Subquery(newest)).values_list("newest")))
        ranked = tasks.annotate(rank=Window(RowNumber(), order_by=F("id").desc()), low=Lower("title"))
        see(list(ranked.values_list("rank", "low")[:2]))
        see(list(of(tenant).filter(details__k__0=1, tags__contains=["a"]).values_list("details__k", "tags__0")))
        see([tasks.filter(id=3).exists(), list(tasks.in_bulk([(tenant, 3)]))])
        with connection.cursor() as cursor:
            cursor.execute("SELECT title FROM dj_task WHERE tenant_id = %s AND id = 1", [tenant])
            see(cursor.fetchall())
            cursor.executemany("UPDATE dj_task SET done = %s WHERE tenant_id = %s AND id = %s", [(True, tenant, n) for n in (1, 2)])
            see(cursor.rowcount)
        see(tasks.explain(costs=False)[:20] != "")


@check
def upserts_and_bulk_updates():
    for tenant in TENANTS:
        rows = [Task(tenant_id=tenant, id=n, project_id=1, title=f"task {n}", hours=n) for n in range(55, 65)]
        save_all(rows, update_conflicts=True, update_fields=["hours"], unique_fields=["tenant_id", "id"])
        save_all(rows, ignore_conflicts=True)
        see(of(tenant, Task).aggregate(Sum("hours")))
        changed = list(of(tenant, Task).filter(id__lte=20))
        for task in changed:
            task.hours = 7
        try:
            see(Task.objects.bulk_update(changed, ["hours"]))
        except DatabaseError as error:
            see(str(error).splitlines()[0])
        see(of(tenant, Task).filter(id__gt=60).delete())


@check
def transactions_and_savepoints():
    for tenant in TENANTS:
        try:
            with transaction.atomic():
                of(tenant).update(name="lost")
                try:
                    with transaction.atomic():
                        Project.objects.create(tenant_id=tenant, id=1, name="twice")
                except IntegrityError as error:
                    see(error.__cause__.sqlstate)
                equal(of(tenant).select_for_update(nowait=True).get().name, "lost")
                done = []
                transaction.on_commit(lambda: done.append(tenant))
                raise KeyError
        except KeyError:
            pass
        equal((of(tenant).get().name, done), (f"project {tenant}", []))
        with transaction.atomic(durable=True):
            of(tenant).update(budget=5)
    with connection.cursor() as cursor:
        cursor.execute("SELECT 1")
        see(cursor.fetchone())


@check
def iterators_read_in_parts():
    for alias in ("default", "bound"):
        for tenant in (1, 2):
            ids = of(tenant, Task).using(alias).order_by("id").values_list("id", flat=True)
            equal(list(ids.iterator(chunk_size=20)), list(range(1, 61)))
            with transaction.atomic(using=alias):
                equal(sum(1 for _ in ids.iterator(chunk_size=20)), 60)


@check
def parameters_bound_by_the_server():
    for tenant in TENANTS:
        for turn in range(7):
            see(list(of(tenant, Task).using("bound").filter(id__in=[1, 2, turn]).order_by("id").values_list("id", "title")))
    see(list(Project.objects.using("bound").order_by("tenant_id").values_list("tenant_id", flat=True)[:5]))


@check
def reads_over_many_tenants():
    see(list(Project.objects.order_by("tenant_id").values_list("tenant_id", "name")[:5]))
    see(list(Project.objects.filter(tenant_id__in=[2, 5, 8]).order_by("-tenant_id").values_list("tenant_id", flat=True)))
    see(list(Task.objects.filter(id=3).order_by("tenant_id").values_list("tenant_id", "title")))


@check
def users_and_sessions():
    from django.contrib.auth.models import Group, Permission, User
    from django.contrib.sessions.backends.db import SessionStore

    user = User.objects.create_user("ada", "ada@example.org", "secret")
    group = Group.objects.create(name="staff")
    user.groups.add(group)
    group.permissions.add(*Permission.objects.filter(codename__startswith="add_")[:3])
    see([user.check_password("secret"), user.groups.count(), sorted(user.get_all_permissions())])
    see(list(User.objects.filter(groups__name="staff").values_list("username", flat=True)))
    session = SessionStore()
    session["cart"] = [1, 2]
    session.save()
    see(SessionStore(session.session_key)["cart"])
    session.delete()
    see(User.objects.filter(username="ada").delete()[0] > 0)


@check
def pool_is_shared_by_threads():
    wrong = []

    def work(tenant):
        try:
            for n in range(15):
                with transaction.atomic(using="pooled"):
                    name = of(tenant).using("pooled").get().name
                    of(tenant, Task).using("pooled").filter(id=n).update(hours=n)
                if name != f"project {tenant}":
                    wrong.append(name)
                connections["pooled"].close()
        except Exception as error:
            wrong.append(repr(error))
        finally:
            connections.close_all()

    threads = [threading.Thread(target=work, args=(t,)) for t in TENANTS]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    equal(wrong, [])
    connections["pooled"].close_pool()


@check
async def asynchronous_queries():
    for tenant in (1, 2):
        see([p.name async for p in of(tenant)])
        see(await of(tenant, Task).acount())


if not SHARDED:

    @check
    def copies_of_every_tenant():
        Plan.objects.create(code="free", title="Free")
        see(Plan.objects.count())
        see(list(Project.objects.values("tenant_id").annotate(n=Count("id")).order_by("tenant_id").values_list("tenant_id", "n")))
        see(Task.objects.values("title").annotate(n=Count("id")).order_by("title")[:2].count())
        see(command("flush", interactive=False) == "")


if __name__ == "__main__":
    main()
