"""Tenants' projects and tasks: keys of two columns, the tenant's first."""

import os

from django.contrib.postgres.fields import ArrayField
from django.contrib.postgres.indexes import GinIndex
from django.db import models

SHARDED = "KEYWAY_TEST_SHARDED" in os.environ


class Plan(models.Model):
    code = models.CharField(max_length=20, primary_key=True)
    title = models.CharField(max_length=80)

    class Meta:
        app_label = "django_app"
        db_table = "dj_plan"


class Project(models.Model):
    pk = models.CompositePrimaryKey("tenant_id", "id")
    tenant_id = models.BigIntegerField()
    id = models.BigIntegerField()
    name = models.CharField(max_length=80)
    budget = models.DecimalField(max_digits=12, decimal_places=2, null=True)
    tags = ArrayField(models.CharField(max_length=20), default=list)
    details = models.JSONField(default=dict)
    ref = models.UUIDField(null=True)
    created = models.DateTimeField(null=True)

    class Meta:
        app_label = "django_app"
        db_table = "dj_project"
        indexes = [GinIndex(fields=["details"], name="dj_project_details")]


class Task(models.Model):
    pk = models.CompositePrimaryKey("tenant_id", "id")
    tenant_id = models.BigIntegerField()
    id = models.BigIntegerField()
    project_id = models.BigIntegerField()
    project = models.ForeignObject(
        Project, on_delete=models.CASCADE, from_fields=("tenant_id", "project_id"), to_fields=("tenant_id", "id"), related_name="tasks"
    )
    title = models.CharField(max_length=80)
    done = models.BooleanField(default=False)
    hours = models.IntegerField(default=0)

    class Meta:
        app_label = "django_app"
        db_table = "dj_task"
        constraints = [
            models.UniqueConstraint(fields=["tenant_id", "title"], name="dj_one_title"),
            models.CheckConstraint(condition=models.Q(hours__gte=0), name="dj_no_debt"),
        ]
