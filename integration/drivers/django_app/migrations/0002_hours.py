"""A column with a constraint and an index that is made without a lock, and rows."""

from django.contrib.postgres.operations import AddIndexConcurrently
from django.db import migrations, models


def plans(apps, _):
    apps.get_model("django_app", "Plan").objects.all().count()


class Migration(migrations.Migration):
    atomic = False

    dependencies = [("django_app", "0001_initial")]

    operations = [
        migrations.AddField("task", "hours", models.IntegerField(default=0)),
        migrations.AddConstraint("task", models.CheckConstraint(condition=models.Q(("hours__gte", 0)), name="dj_no_debt")),
        AddIndexConcurrently("task", models.Index(fields=["tenant_id", "hours"], name="dj_task_hours")),
        migrations.RemoveIndex("task", "dj_task_hours"),
        migrations.RunSQL("COMMENT ON TABLE dj_task IS 'things; to do'", migrations.RunSQL.noop),
        migrations.RunPython(plans, migrations.RunPython.noop),
    ]
