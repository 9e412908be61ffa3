-- no-transaction
CREATE INDEX CONCURRENTLY tasks_by_project ON sx.tasks (tenant_id, project_id)
