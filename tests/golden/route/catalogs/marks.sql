-- The schema that marks.json describes; keyway catalog wrote that file.
CREATE TABLE tenants (id bigint PRIMARY KEY, name text);
CREATE TABLE users (
    tenant_id bigint NOT NULL, id bigint NOT NULL, email text UNIQUE, name text,
    PRIMARY KEY (tenant_id, id));
CREATE TABLE comments (tenant_id bigint NOT NULL, text text);
ALTER TABLE comments ENABLE ROW LEVEL SECURITY;
CREATE POLICY own ON comments USING (EXISTS (SELECT FROM users WHERE users.id = 1));
CREATE TABLE tasks (tenant_id bigint NOT NULL, id bigint, title text)
    PARTITION BY LIST (tenant_id);
CREATE TABLE tasks_42 PARTITION OF tasks FOR VALUES IN (42);
CREATE TABLE tasks_rest PARTITION OF tasks DEFAULT;
CREATE TABLE plans (id int PRIMARY KEY);
-- Also a name of the map's: rows of it are rows of tenants by another key.
CREATE TABLE accounts (name text NOT NULL) INHERITS (plans);
CREATE VIEW people AS SELECT tenant_id, name FROM users;
CREATE FUNCTION others(bigint) RETURNS bigint STABLE LANGUAGE sql AS
    'SELECT count(*) FROM users WHERE tenant_id <> $1';
CREATE FUNCTION upper(bigint) RETURNS bigint STABLE LANGUAGE sql AS 'SELECT 1::bigint';
