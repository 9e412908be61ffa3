-- no-transaction
CREATE TABLE sx.tasks (
    tenant_id bigint NOT NULL, id bigint NOT NULL, project_id bigint NOT NULL, title text, done boolean NOT NULL DEFAULT false,
    PRIMARY KEY (tenant_id, id), FOREIGN KEY (tenant_id, project_id) REFERENCES sx.projects
)
