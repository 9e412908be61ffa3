drop table if exists d_psql_t;
create table d_psql_t (id int primary key, t text default 'x' not null);
create index d_psql_i on d_psql_t (t);
\d d_psql_t
\dt d_psql_*
\di d_psql_*
\dn public
\df pg_catalog.int4pl
\du d_role_*
\l template0
\dT pg_catalog.int4
\dv d_psql_*
\dp d_psql_t
\sf pg_catalog.now
\d d_psql_none
\encoding
\echo :SERVER_VERSION_NUM :DBNAME :USER :ENCODING
drop table d_psql_t;
