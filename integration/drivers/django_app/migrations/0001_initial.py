"""The first schema, as makemigrations wrote it."""

import django.contrib.postgres.fields
import django.contrib.postgres.indexes
import django.db.models.deletion
from django.db import migrations, models


class Migration(migrations.Migration):

    initial = True

    dependencies = [
    ]

    operations = [
        migrations.CreateModel(
            name='Plan',
            fields=[
                ('code', models.CharField(max_length=20, primary_key=True, serialize=False)),
                ('title', models.CharField(max_length=80)),
            ],
            options={
                'db_table': 'dj_plan',
            },
        ),
        migrations.CreateModel(
            name='Project',
            fields=[
                ('pk', models.CompositePrimaryKey('tenant_id', 'id', blank=True, editable=False, primary_key=True, serialize=False)),
                ('tenant_id', models.BigIntegerField()),
                ('id', models.BigIntegerField()),
                ('name', models.CharField(max_length=80)),
                ('budget', models.DecimalField(decimal_places=2, max_digits=12, null=True)),
                ('tags', django.contrib.postgres.fields.ArrayField(base_field=models.CharField(max_length=20), default=list, size=None)),
                ('details', models.JSONField(default=dict)),
                ('ref', models.UUIDField(null=True)),
                ('created', models.DateTimeField(null=True)),
            ],
            options={
                'db_table': 'dj_project',
                'indexes': [django.contrib.postgres.indexes.GinIndex(fields=['details'], name='dj_project_details')],
            },
        ),
        migrations.CreateModel(
            name='Task',
            fields=[
                ('pk', models.CompositePrimaryKey('tenant_id', 'id', blank=True, editable=False, primary_key=True, serialize=False)),
                ('tenant_id', models.BigIntegerField()),
                ('id', models.BigIntegerField()),
                ('project_id', models.BigIntegerField()),
                ('title', models.CharField(max_length=80)),
                ('done', models.BooleanField(default=False)),
                ('project', models.ForeignObject(from_fields=('tenant_id', 'project_id'), on_delete=django.db.models.deletion.CASCADE, related_name='tasks', to='django_app.project', to_fields=('tenant_id', 'id'))),
            ],
            options={
                'db_table': 'dj_task',
                'constraints': [models.UniqueConstraint(fields=('tenant_id', 'title'), name='dj_one_title')],
            },
        ),
    ]
