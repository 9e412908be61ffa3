//! What the loader asks a server, as SQL.
//!
//! Every relation and function is named with its schema, and the search path
//! is empty, so that nothing a user made can take a name's place. Any role may
//! read these catalogs. Nothing here takes a lock on a user's table: views are
//! read from their stored trees (`pg_node_tree`), whose words quote what users
//! named, instead of by `pg_get_viewdef`, which would wait behind ALTER TABLE.
//!
//! Source: PostgreSQL manual, "System Catalogs"; the trees as PostgreSQL 15 to
//! 18 write them.

/// The first words on a connection.
pub(super) const SETUP: &str = "SET search_path = ''; SET jit = off; \
    SET default_transaction_read_only = on; SET statement_timeout = '60s'";

/// Before and after the questions that must see one state.
pub(super) const BEGIN: &str = "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY";
pub(super) const COMMIT: &str = "COMMIT";

/// Marks of all that the other questions read: rows of (age of a fixed
/// transaction number, part, rows, sum). A sum of ages moves with each
/// transaction of the server, and with the first column can be brought back to
/// a sum of the rows' transaction numbers, which every change makes larger.
/// Temporary tables don't count. Storage doesn't either, so that TRUNCATE and
/// VACUUM FULL go unnoticed.
pub(super) const PROBE: &str = r"
WITH relation AS MATERIALIZED (
  SELECT c.oid, pg_catalog.hash_record_extended(ROW(c.oid, c.relname, c.relnamespace, c.relkind,
    c.relpersistence, c.relrowsecurity, c.relispartition, c.reloptions), 0) AS mark
  FROM pg_catalog.pg_class c
  WHERE c.oid >= 16384 AND c.relkind IN ('r', 'p', 'v', 'm', 'f', 'S') AND c.relpersistence <> 't'
)
SELECT pg_catalog.age('3'::pg_catalog.xid), x.* FROM (
  SELECT 1 AS part, pg_catalog.count(*), pg_catalog.bit_xor(r.mark) FROM relation r
  UNION ALL SELECT 2, pg_catalog.count(*), pg_catalog.sum(pg_catalog.age(a.xmin))
    FROM pg_catalog.pg_attribute a JOIN relation r ON r.oid = a.attrelid
  UNION ALL SELECT 3, pg_catalog.count(*), pg_catalog.sum(pg_catalog.age(k.xmin))
    FROM pg_catalog.pg_constraint k LEFT JOIN relation r ON r.oid = k.conrelid
    WHERE k.oid >= 16384 AND (k.conrelid = 0 OR r.oid IS NOT NULL)
  UNION ALL SELECT 4, pg_catalog.count(*), pg_catalog.sum(pg_catalog.age(i.xmin))
    FROM pg_catalog.pg_index i JOIN relation r ON r.oid = i.indrelid WHERE i.indisunique
  UNION ALL SELECT 5, pg_catalog.count(*), pg_catalog.sum(pg_catalog.age(g.xmin))
    FROM pg_catalog.pg_trigger g WHERE g.oid >= 16384
  UNION ALL SELECT 6, pg_catalog.count(*), pg_catalog.sum(pg_catalog.age(w.xmin))
    FROM pg_catalog.pg_rewrite w WHERE w.oid >= 16384
  UNION ALL SELECT 7, pg_catalog.count(*), pg_catalog.sum(pg_catalog.age(p.xmin))
    FROM pg_catalog.pg_proc p WHERE p.oid >= 16384
  UNION ALL SELECT 8, pg_catalog.count(*), pg_catalog.sum(pg_catalog.age(t.xmin))
    FROM pg_catalog.pg_type t WHERE t.oid >= 16384
      AND (t.typtype IN ('d', 'e', 'r') OR t.typtype = 'b' AND t.typelem = 0)
  UNION ALL SELECT 9, pg_catalog.count(*), pg_catalog.sum(pg_catalog.age(e.xmin))
    FROM pg_catalog.pg_enum e
  UNION ALL SELECT 10, pg_catalog.count(*), pg_catalog.sum(pg_catalog.age(p.xmin))
    FROM pg_catalog.pg_policy p
  UNION ALL SELECT 11, pg_catalog.count(*), pg_catalog.bit_xor(
      pg_catalog.hash_record_extended(ROW(n.oid, n.nspname, n.nspacl::text, n.nspowner), 0))
    FROM pg_catalog.pg_namespace n WHERE n.nspname !~ '^pg_'
  UNION ALL SELECT 12, pg_catalog.count(*), pg_catalog.sum(pg_catalog.age(i.xmin))
    FROM pg_catalog.pg_inherits i
  UNION ALL SELECT 13, pg_catalog.count(*), pg_catalog.sum(pg_catalog.age(s.xmin))
    FROM pg_catalog.pg_db_role_setting s
  UNION ALL SELECT 14, pg_catalog.count(*), pg_catalog.sum(pg_catalog.age(c.xmin))
    FROM pg_catalog.pg_class c WHERE c.oid >= 16384 AND c.relkind = 'c'
) x ORDER BY x.part
";

/// All relations: rows of ('relation', schema, name, facts as JSON).
/// The triggers of moves, whose functions are in our own schema, write nothing
/// and come and go.
pub(super) const RELATIONS: &str = r"
WITH RECURSIVE chain AS (
  SELECT t.oid, t.oid AS member, t.typbasetype AS base, t.typtypmod AS typmod,
    t.typnotnull AS not_null, t.typdefault IS NOT NULL AS has_default
  FROM pg_catalog.pg_type t WHERE t.typtype = 'd'
  UNION ALL
  SELECT chain.oid, t.oid, t.typbasetype,
    CASE WHEN chain.typmod >= 0 THEN chain.typmod ELSE t.typtypmod END,
    chain.not_null OR t.typnotnull, chain.has_default OR t.typdefault IS NOT NULL
  FROM chain JOIN pg_catalog.pg_type t ON t.oid = chain.base AND t.typtype = 'd'
), domain AS MATERIALIZED (
  SELECT chain.* FROM chain JOIN pg_catalog.pg_type t ON t.oid = chain.base AND t.typtype <> 'd'
), wild AS MATERIALIZED (
  SELECT p.oid FROM pg_catalog.pg_proc p WHERE p.oid >= 16384 AND p.provolatile = 'v'
)
SELECT 'relation', n.nspname, c.relname, pg_catalog.json_strip_nulls(pg_catalog.json_build_object(
  'kind', CASE c.relkind WHEN 'r' THEN 'table' WHEN 'p' THEN 'partitioned_table'
    WHEN 'v' THEN 'view' WHEN 'm' THEN 'materialized_view' WHEN 'f' THEN 'foreign_table'
    ELSE 'sequence' END,
  'persistence', CASE c.relpersistence WHEN 'u' THEN 'unlogged' END,
  'row_security', NULLIF(c.relrowsecurity, false),
  'partition', NULLIF(c.relispartition, false),
  'parents', (
    SELECT pg_catalog.json_agg(pg_catalog.json_build_object('schema', pn.nspname, 'name', pc.relname))
    FROM pg_catalog.pg_inherits i
    JOIN pg_catalog.pg_class pc ON pc.oid = i.inhparent
    JOIN pg_catalog.pg_namespace pn ON pn.oid = pc.relnamespace
    WHERE i.inhrelid = c.oid),
  'columns', (
    SELECT pg_catalog.json_agg(pg_catalog.json_build_object(
      'name', a.attname,
      'type', CASE WHEN tn.nspname = 'pg_catalog' THEN t.typname::text
        ELSE tn.nspname || '.' || t.typname END,
      'base', CASE WHEN d.oid IS NULL THEN NULL WHEN bn.nspname = 'pg_catalog' THEN b.typname::text
        ELSE bn.nspname || '.' || b.typname END,
      'is_enum', NULLIF(COALESCE(b.typtype, t.typtype) = 'e', false),
      'length', CASE WHEN COALESCE(bn.nspname, tn.nspname) = 'pg_catalog'
          AND GREATEST(a.atttypmod, d.typmod) >= 0
        THEN CASE COALESCE(b.typname, t.typname)
          WHEN 'varchar' THEN GREATEST(a.atttypmod, d.typmod) - 4
          WHEN 'bpchar' THEN GREATEST(a.atttypmod, d.typmod) - 4
          WHEN 'numeric' THEN ((GREATEST(a.atttypmod, d.typmod) - 4) >> 16) & 65535
          WHEN 'timestamptz' THEN GREATEST(a.atttypmod, d.typmod) END END,
      'not_null', NULLIF(a.attnotnull OR COALESCE(d.not_null, false), false),
      'default', NULLIF((a.atthasdef AND a.attgenerated = '')
        OR COALESCE(d.has_default, false), false),
      'generated', CASE a.attgenerated WHEN 's' THEN 'stored' WHEN 'v' THEN 'virtual' END,
      'identity', CASE a.attidentity WHEN 'a' THEN 'always' WHEN 'd' THEN 'by_default' END,
      'nondeterministic', NULLIF(EXISTS (SELECT 1 FROM pg_catalog.pg_collation co
        WHERE co.oid = a.attcollation AND NOT co.collisdeterministic), false)
    ) ORDER BY a.attnum)
    FROM pg_catalog.pg_attribute a
    JOIN pg_catalog.pg_type t ON t.oid = a.atttypid
    JOIN pg_catalog.pg_namespace tn ON tn.oid = t.typnamespace
    LEFT JOIN domain d ON d.oid = a.atttypid
    LEFT JOIN pg_catalog.pg_type b ON b.oid = d.base
    LEFT JOIN pg_catalog.pg_namespace bn ON bn.oid = b.typnamespace
    WHERE a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped AND c.relkind <> 'S'),
  'keys', (
    SELECT pg_catalog.json_agg(pg_catalog.json_build_object(
      'primary', NULLIF(i.indisprimary, false),
      'columns', (
        SELECT pg_catalog.json_agg(a.attname ORDER BY k.place)
        FROM pg_catalog.unnest(i.indkey::int2[]) WITH ORDINALITY k(number, place)
        JOIN pg_catalog.pg_attribute a ON a.attrelid = c.oid AND a.attnum = k.number
        WHERE k.place <= i.indnkeyatts)))
    FROM pg_catalog.pg_index i
    WHERE i.indrelid = c.oid AND i.indisunique AND i.indisvalid
      AND i.indpred IS NULL AND i.indexprs IS NULL),
  'foreign_keys', (
    SELECT pg_catalog.json_agg(pg_catalog.json_build_object(
      'columns', (
        SELECT pg_catalog.json_agg(a.attname ORDER BY k.place)
        FROM pg_catalog.unnest(f.conkey) WITH ORDINALITY k(number, place)
        JOIN pg_catalog.pg_attribute a ON a.attrelid = f.conrelid AND a.attnum = k.number),
      'references', pg_catalog.json_build_object('schema', fn.nspname, 'name', fc.relname),
      'referenced', (
        SELECT pg_catalog.json_agg(a.attname ORDER BY k.place)
        FROM pg_catalog.unnest(f.confkey) WITH ORDINALITY k(number, place)
        JOIN pg_catalog.pg_attribute a ON a.attrelid = f.confrelid AND a.attnum = k.number),
      'on_delete', CASE f.confdeltype WHEN 'c' THEN 'cascade' WHEN 'n' THEN 'set_null'
        WHEN 'd' THEN 'set_default' END,
      'on_update', CASE f.confupdtype WHEN 'c' THEN 'cascade' WHEN 'n' THEN 'set_null'
        WHEN 'd' THEN 'set_default' END))
    FROM pg_catalog.pg_constraint f
    JOIN pg_catalog.pg_class fc ON fc.oid = f.confrelid
    JOIN pg_catalog.pg_namespace fn ON fn.oid = fc.relnamespace
    WHERE f.conrelid = c.oid AND f.contype = 'f'),
  'triggers', (
    SELECT pg_catalog.json_agg(g.tgname) FROM pg_catalog.pg_trigger g
    WHERE g.tgrelid = c.oid AND g.tgenabled <> 'D'
      AND (NOT g.tgisinternal OR g.tgconstraint = 0)
      AND NOT EXISTS (SELECT 1 FROM pg_catalog.pg_proc p
        JOIN pg_catalog.pg_namespace pn ON pn.oid = p.pronamespace
        WHERE p.oid = g.tgfoid AND pn.nspname = 'keyway')),
  'rules', (
    SELECT pg_catalog.json_agg(r.rulename) FROM pg_catalog.pg_rewrite r
    WHERE r.ev_class = c.oid AND r.rulename <> '_RETURN' AND r.ev_enabled <> 'D'),
  'calls_volatile', NULLIF(EXISTS (
    SELECT 1 FROM (
      SELECT d.adbin::text FROM pg_catalog.pg_attrdef d WHERE d.adrelid = c.oid
      UNION ALL
      SELECT k.conbin::text FROM pg_catalog.pg_constraint k
        WHERE k.conrelid = c.oid AND k.conbin IS NOT NULL
      UNION ALL
      SELECT COALESCE(k.conbin::text, '') || COALESCE(m.typdefaultbin::text, '')
        FROM pg_catalog.pg_attribute a JOIN chain ON chain.oid = a.atttypid
        JOIN pg_catalog.pg_type m ON m.oid = chain.member
        LEFT JOIN pg_catalog.pg_constraint k ON k.contypid = chain.member
        WHERE a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
      UNION ALL
      SELECT COALESCE(p.polqual::text, '') || COALESCE(p.polwithcheck::text, '')
        FROM pg_catalog.pg_policy p WHERE p.polrelid = c.oid
    ) e(tree), pg_catalog.regexp_matches(e.tree, ':(?:funcid|opfuncid) (\d+)', 'g') f(id)
    WHERE f.id[1]::oid IN (SELECT wild.oid FROM wild)), false),
  'view', CASE WHEN c.relkind IN ('v', 'm') THEN (
    SELECT pg_catalog.json_build_object(
      'reads', (
        SELECT pg_catalog.json_agg(pg_catalog.json_build_object('schema', rn.nspname, 'name', rc.relname))
        FROM (SELECT DISTINCT f.id[1]::oid AS oid
          FROM pg_catalog.regexp_matches(v.tree, ':relid (\d+)', 'g') f(id)) x
        JOIN pg_catalog.pg_class rc ON rc.oid = x.oid
        JOIN pg_catalog.pg_namespace rn ON rn.oid = rc.relnamespace
        WHERE x.oid <> c.oid),
      'simple', NULLIF(v.simple, false),
      'origins', CASE WHEN v.simple THEN (
        SELECT pg_catalog.json_agg(b.attname ORDER BY a.attnum)
        FROM pg_catalog.pg_attribute a
        LEFT JOIN (
          SELECT f.part[1]::int2 AS number, f.part[2]::oid AS relation, f.part[3]::int2 AS origin
          FROM pg_catalog.regexp_matches(v.tree, ':resno (\d+) :resname (?:[^\s\\]|\\.)+ :ressortgroupref \d+ :resorigtbl (\d+) :resorigcol (\d+) :resjunk false', 'g') f(part)
        ) o ON o.number = a.attnum
        LEFT JOIN pg_catalog.pg_attribute b
          ON b.attrelid = o.relation AND b.attnum = o.origin AND o.origin > 0
        WHERE a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped) END,
      'volatility', CASE WHEN v.tree LIKE '%:hasForUpdate true%' THEN 'volatile' ELSE (
        SELECT CASE COALESCE(pg_catalog.max(CASE p.provolatile WHEN 'v' THEN 2 WHEN 's' THEN 1 ELSE 0 END), 0)
          WHEN 2 THEN 'volatile' WHEN 1 THEN 'stable' ELSE 'immutable' END
        FROM pg_catalog.regexp_matches(v.tree, ':(?:funcid|opfuncid|aggfnoid|winfnoid) (\d+)', 'g') f(id)
        LEFT JOIN pg_catalog.pg_aggregate ag ON ag.aggfnoid = f.id[1]::oid
        JOIN pg_catalog.pg_proc p ON p.oid IN (f.id[1]::oid, ag.aggtransfn, ag.aggfinalfn)) END,
      'barrier', NULLIF('security_barrier=true' = ANY (c.reloptions), false),
      'definition', pg_catalog.hashtextextended(
        pg_catalog.regexp_replace(v.tree, ':location -?\d+|\m\d{5,}\M', '', 'g'), 0)::text)
    FROM (
      SELECT t.tree, (SELECT pg_catalog.count(*) = 1
          FROM pg_catalog.regexp_matches(t.tree, '\{QUERY ', 'g'))
        AND t.tree LIKE '%:hasAggs false :hasWindowFuncs false :hasTargetSRFs false :hasSubLinks false :hasDistinctOn false :hasRecursive false :hasModifyingCTE false :hasForUpdate false %'
        AND t.tree ~ ':fromlist \(\{RANGETBLREF :rtindex \d+\}\)'
        AND t.tree LIKE '%:groupClause <> %' AND t.tree LIKE '%:groupingSets <> %'
        AND t.tree LIKE '%:havingQual <> %' AND t.tree LIKE '%:distinctClause <> %'
        AND t.tree LIKE '%:limitOffset <> %' AND t.tree LIKE '%:limitCount <> %'
        AND t.tree LIKE '%:setOperations <> %' AND t.tree LIKE '%:rowMarks <> %'
        AND t.tree NOT LIKE '%{TABLESAMPLECLAUSE %' AS simple
      FROM (SELECT r.ev_action::text AS tree FROM pg_catalog.pg_rewrite r
        WHERE r.ev_class = c.oid AND r.rulename = '_RETURN') t) v) END
))::text
FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
WHERE c.relkind IN ('r', 'p', 'v', 'm', 'f', 'S') AND c.relpersistence <> 't'
  AND n.nspname !~ '^pg_' AND n.nspname <> 'information_schema'
";

/// All schemas: rows of ('schema', name, NULL, whether every role may look into it).
pub(super) const SCHEMAS: &str = r"
SELECT 'schema', n.nspname, NULL, CASE WHEN EXISTS (
    SELECT 1 FROM pg_catalog.aclexplode(COALESCE(n.nspacl, pg_catalog.acldefault('n', n.nspowner))) x
    WHERE x.grantee = 0 AND x.privilege_type = 'USAGE') THEN 'true' ELSE 'false' END
FROM pg_catalog.pg_namespace n
WHERE n.nspname !~ '^pg_' AND n.nspname <> 'information_schema'
";

/// All enums: rows of ('enum', schema, name, labels as JSON).
pub(super) const ENUMS: &str = r"
SELECT 'enum', n.nspname, t.typname, pg_catalog.json_agg(e.enumlabel ORDER BY e.enumsortorder)::text
FROM pg_catalog.pg_enum e JOIN pg_catalog.pg_type t ON t.oid = e.enumtypid
JOIN pg_catalog.pg_namespace n ON n.oid = t.typnamespace
WHERE n.nspname !~ '^pg_' AND n.nspname <> 'information_schema'
GROUP BY n.nspname, t.typname
";

/// The numbers of the database's own types: rows of ('type', schema, name,
/// number, form, the type that it is made of, relation), the last four in one
/// text. A type of the catalogs' own has the same number everywhere.
pub(super) const TYPES: &str = r"
SELECT 'type', n.nspname, t.typname, pg_catalog.concat_ws(' ', t.oid,
  CASE WHEN e.oid IS NOT NULL THEN 'a' ELSE t.typtype END,
  CASE WHEN e.oid IS NOT NULL THEN e.oid WHEN t.typtype = 'd' THEN t.typbasetype
    WHEN r.rngtypid = t.oid THEN r.rngsubtype WHEN r.rngmultitypid = t.oid THEN r.rngtypid
    ELSE 0 END,
  t.typrelid)
FROM pg_catalog.pg_type t
JOIN pg_catalog.pg_namespace n ON n.oid = t.typnamespace
LEFT JOIN pg_catalog.pg_type e ON e.oid = t.typelem AND e.typarray = t.oid
LEFT JOIN pg_catalog.pg_range r ON t.oid IN (r.rngtypid, r.rngmultitypid)
WHERE t.oid >= 16384 AND n.nspname !~ '^pg_(temp|toast)'
";

/// All functions: rows of ('function', schema, name, facts as JSON).
/// Those of moves' triggers can't be called.
pub(super) const FUNCTIONS: &str = r"
SELECT 'function', n.nspname, p.proname, pg_catalog.json_strip_nulls(pg_catalog.json_build_object(
  'arguments', p.pronargs,
  'kind', CASE p.prokind WHEN 'p' THEN 'procedure' WHEN 'a' THEN 'aggregate' WHEN 'w' THEN 'window' END,
  'volatility', CASE GREATEST(
      CASE p.provolatile WHEN 'v' THEN 2 WHEN 's' THEN 1 ELSE 0 END,
      (SELECT pg_catalog.max(CASE h.provolatile WHEN 'v' THEN 2 WHEN 's' THEN 1 ELSE 0 END)
        FROM pg_catalog.pg_aggregate ag JOIN pg_catalog.pg_proc h ON h.oid IN (ag.aggtransfn,
          ag.aggfinalfn, ag.aggcombinefn, ag.aggmtransfn, ag.aggminvtransfn, ag.aggmfinalfn)
        WHERE p.prokind = 'a' AND ag.aggfnoid = p.oid),
      -- A call by name alone may mean the server's own function of that name.
      (SELECT pg_catalog.max(CASE b.provolatile WHEN 'v' THEN 2 WHEN 's' THEN 1 ELSE 0 END)
        FROM pg_catalog.pg_proc b WHERE b.proname = p.proname AND b.pronamespace = 11))
    WHEN 2 THEN 'volatile' WHEN 1 THEN 'stable' ELSE 'immutable' END,
  'language', l.lanname,
  'touches_session', NULLIF(l.lanname NOT IN ('c', 'internal') AND (
    p.prosrc ~* '(set_config|advisory|\mset\M|\mreset\M|listen|discard|\mtemp|prepare|execute|\mload\M)'
    OR EXISTS (SELECT 1
      FROM pg_catalog.regexp_matches(p.prosqlbody::text, ':funcid (\d+)', 'g') f(id)
      JOIN pg_catalog.pg_proc h ON h.oid = f.id[1]::oid
      WHERE h.proname ~ '(set_config|advisory)')), false)
))::text
FROM pg_catalog.pg_proc p
JOIN pg_catalog.pg_namespace n ON n.oid = p.pronamespace
JOIN pg_catalog.pg_language l ON l.oid = p.prolang
WHERE n.nspname !~ '^pg_' AND n.nspname <> 'information_schema'
  AND NOT (n.nspname = 'keyway' AND p.prorettype = 'pg_catalog.trigger'::pg_catalog.regtype)
";

/// Search paths of roles and databases: rows of ('path', role, scope, path).
pub(super) const PATHS: &str = r"
SELECT 'path', r.rolname, CASE WHEN s.setdatabase <> 0 THEN 'database' ELSE 'cluster' END,
  pg_catalog.substr(c.setting, 13)
FROM pg_catalog.pg_db_role_setting s
LEFT JOIN pg_catalog.pg_roles r ON r.oid = s.setrole,
  pg_catalog.unnest(s.setconfig) c(setting)
WHERE c.setting LIKE 'search\_path=%' AND (s.setrole = 0 OR r.oid IS NOT NULL)
  AND s.setdatabase IN (0, (SELECT d.oid FROM pg_catalog.pg_database d
    WHERE d.datname = pg_catalog.current_database()))
";

/// Modes that transactions of roles and databases begin with: rows of ('mode',
/// role, scope, name=value).
pub(super) const MODES: &str = r"
SELECT 'mode', r.rolname, CASE WHEN s.setdatabase <> 0 THEN 'database' ELSE 'cluster' END,
  c.setting
FROM pg_catalog.pg_db_role_setting s
LEFT JOIN pg_catalog.pg_roles r ON r.oid = s.setrole,
  pg_catalog.unnest(s.setconfig) c(setting)
WHERE c.setting ~ '^default_transaction_(isolation|read_only)='
  AND (s.setrole = 0 OR r.oid IS NOT NULL)
  AND s.setdatabase IN (0, (SELECT d.oid FROM pg_catalog.pg_database d
    WHERE d.datname = pg_catalog.current_database()))
";

/// The same of the server's configuration, where it is not Postgres's own and no
/// other hides it from the role that asks.
pub(super) const SERVER_MODES: &str = r"
SELECT 'mode', NULL, 'server', g.name || '=' || g.reset_val FROM pg_catalog.pg_settings g
WHERE g.name IN ('default_transaction_isolation', 'default_transaction_read_only')
  AND g.reset_val NOT IN ('read committed', 'off') AND NOT EXISTS (
  SELECT 1 FROM pg_catalog.pg_db_role_setting s
  LEFT JOIN pg_catalog.pg_roles r ON r.oid = s.setrole,
    pg_catalog.unnest(s.setconfig) c(setting)
  WHERE pg_catalog.starts_with(c.setting, g.name || '=')
    AND (s.setrole = 0 OR r.rolname = SESSION_USER)
    AND s.setdatabase IN (0, (SELECT d.oid FROM pg_catalog.pg_database d
      WHERE d.datname = pg_catalog.current_database())))
";

/// The search path of the server's configuration, where no other hides it from
/// the role that asks.
pub(super) const SERVER_PATH: &str = r"
SELECT 'path', NULL, 'server', g.reset_val FROM pg_catalog.pg_settings g
WHERE g.name = 'search_path' AND NOT EXISTS (
  SELECT 1 FROM pg_catalog.pg_db_role_setting s
  LEFT JOIN pg_catalog.pg_roles r ON r.oid = s.setrole,
    pg_catalog.unnest(s.setconfig) c(setting)
  WHERE c.setting LIKE 'search\_path=%' AND (s.setrole = 0 OR r.rolname = SESSION_USER)
    AND s.setdatabase IN (0, (SELECT d.oid FROM pg_catalog.pg_database d
      WHERE d.datname = pg_catalog.current_database())))
";
