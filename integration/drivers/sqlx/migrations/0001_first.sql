-- no-transaction
CREATE TABLE sx.projects (
    tenant_id bigint NOT NULL, id bigint NOT NULL, name text NOT NULL, budget float8, tags text[], details jsonb, ref uuid,
    PRIMARY KEY (tenant_id, id)
)
