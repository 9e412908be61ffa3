-- Fills one shard with its part of the sample.
--
--   psql -v shard=1 -v first=0 -v last=2047 -f schema.sql -f data.sql
--
-- shard is the shard's number, first and last the slots it owns. Every value is
-- a hash of the row's number, so the whole is the same however many shards
-- there are: 300 tenants, 40,457 rows. The filter is the router's own
-- expression for a key's slot.

\set QUIET on
SET client_min_messages = warning;
BEGIN;

CREATE FUNCTION pg_temp.pick(n bigint, salt integer, choices integer) RETURNS integer
    LANGUAGE sql IMMUTABLE
    AS $$ SELECT (hashint8extended(n, salt) & 1073741823)::integer % choices $$;
CREATE FUNCTION pg_temp.word(n bigint, salt integer, words text[]) RETURNS text
    LANGUAGE sql IMMUTABLE
    AS $$ SELECT words[1 + pg_temp.pick(n, salt, cardinality(words))] $$;
CREATE FUNCTION pg_temp.moment(n bigint, salt integer) RETURNS timestamptz
    LANGUAGE sql IMMUTABLE
    AS $$ SELECT timestamptz '2024-01-01 00:00:00+00' + pg_temp.pick(n, salt, 700 * 86400) * interval '1 second' $$;

INSERT INTO plans VALUES
    ('free', 'Free', 5, 0),
    ('team', 'Team', 50, 1900),
    ('business', 'Business', 500, 9900);

INSERT INTO tenants
SELECT t,
       pg_temp.word(t, 1, '{North,South,Blue,Red,Green,Silver,Golden,Quiet,Rapid,Bright}') || ' '
           || pg_temp.word(t, 2, '{Harbour,Mill,Forge,Garden,Bridge,Tower,Field,River,Orchard,Station}')
           || ' ' || pg_temp.word(t, 3, '{Ltd,GmbH,Inc,AB,SARL}'),
       CASE WHEN t % 25 = 0 THEN 'business' WHEN t % 3 = 0 THEN 'free' ELSE 'team' END,
       pg_temp.moment(t, 4)
FROM generate_series(1::bigint, 300) AS t
WHERE (hashint8extended(t, 0) & 4095) BETWEEN :first AND :last;

-- One tenant in 25 is five times as large as the rest.
CREATE TEMPORARY TABLE sizes ON COMMIT DROP AS
SELECT tenant_id, CASE WHEN tenant_id % 25 = 0 THEN 5 ELSE 1 END AS scale FROM tenants;

INSERT INTO users
SELECT tenant_id, id,
       lower(first_name) || '.' || lower(last_name) || '.' || n || '@tenant' || tenant_id || '.example',
       first_name || ' ' || last_name, pg_temp.pick(id, 12, 20) > 0, pg_temp.moment(id, 13)
FROM sizes
CROSS JOIN LATERAL generate_series(1, scale * (4 + pg_temp.pick(tenant_id, 10, 9))) AS n
CROSS JOIN LATERAL (SELECT tenant_id * 1000 + n AS id) AS i
CROSS JOIN LATERAL (
    SELECT pg_temp.word(id, 14, '{Ada,Ben,Chloe,David,Elif,Femi,Grace,Hugo,Ines,Jonas,Kaya,Lea,Mina,Noor,Omar,Pia}') AS first_name,
           pg_temp.word(id, 15, '{Adler,Bauer,Costa,Diaz,Evans,Fischer,Garcia,Haas,Ito,Jansen,Keller,Lind,Meyer,Novak}') AS last_name
) AS names;

INSERT INTO projects
SELECT tenant_id, id,
       pg_temp.word(id, 20, '{Website,Mobile app,Warehouse,Billing,Onboarding,Migration,Analytics,Support desk}') || ' ' || n,
       tenant_id * 1000 + 1 + pg_temp.pick(id, 21, 4),
       jsonb_build_object('colour', pg_temp.word(id, 22, '{teal,amber,plum,slate}'), 'private', pg_temp.pick(id, 23, 4) = 0),
       pg_temp.moment(id, 24)
FROM sizes
CROSS JOIN LATERAL generate_series(1, scale * (1 + pg_temp.pick(tenant_id, 25, 5))) AS n
CROSS JOIN LATERAL (SELECT tenant_id * 1000 + n AS id) AS i;

INSERT INTO tasks
SELECT tenant_id, id, project_id,
       CASE WHEN pg_temp.pick(id, 30, 5) > 0 THEN tenant_id * 1000 + 1 + pg_temp.pick(id, 31, 4) END,
       pg_temp.word(id, 32, '{Write,Check,Plan,Fix,Review,Measure,Remove,Draft}') || ' the '
           || pg_temp.word(id, 33, '{import,report,login page,price list,backup,invoice,search,newsletter,contract}'),
       pg_temp.word(id, 34, '{open,open,doing,done,done}'),
       pg_temp.pick(id, 35, 4000) / 100.0,
       CASE WHEN pg_temp.pick(id, 36, 3) > 0 THEN date '2025-01-01' + pg_temp.pick(id, 37, 600) END,
       pg_temp.moment(id, 38)
FROM projects
CROSS JOIN LATERAL generate_series(1, 5 + pg_temp.pick(project_id, 39, 22)) AS n
CROSS JOIN LATERAL (SELECT project_id * 100 + n AS id) AS i;

INSERT INTO comments
SELECT tenant_id, id, task_id, tenant_id * 1000 + 1 + pg_temp.pick(id, 40, 4),
       pg_temp.word(id, 41, '{Looks good,Can you check this again?,Waiting for the customer,Done on Friday,Moved to next week,Needs a second pair of eyes}'),
       pg_temp.moment(id, 42)
FROM tasks
CROSS JOIN LATERAL generate_series(1, pg_temp.pick(task_id, 43, 5) - 1) AS n
CROSS JOIN LATERAL (SELECT task_id * 10 + n AS id) AS i;

-- New rows get numbers from the shard's own range, far above those given here
-- and apart from every other shard's.
SELECT format(
    'ALTER TABLE %I ALTER COLUMN %I SET START WITH %3$s SET MINVALUE %3$s SET MAXVALUE %4$s RESTART',
    table_name, column_name, :shard * (1::bigint << 40), (:shard + 1) * (1::bigint << 40) - 1)
FROM information_schema.columns
WHERE table_schema = 'public' AND is_identity = 'YES'
ORDER BY table_name
\gexec

COMMIT;
ANALYZE plans, tenants, users, projects, tasks, comments;
