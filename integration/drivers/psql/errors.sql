select 1/0;
\echo :ERROR :SQLSTATE :LAST_ERROR_MESSAGE
selec 1;
\errverbose
select 'unterminated
;
';
select * from d_psql_none;
select $1;
\set ON_ERROR_ROLLBACK on
begin;
select 1;
select 1/0;
select 'still in the transaction';
commit;
\set ON_ERROR_ROLLBACK off
\set AUTOCOMMIT off
select 1;
select 1/0;
select 2;
rollback;
select 3;
commit;
\set AUTOCOMMIT on
begin; select 1/0; commit;
commit;
select 1 \; select 1/0 \; select 2;
select 1 as one \gset
\echo :one :ROW_COUNT :ERROR
select 'create table d_psql_g' || n || ' (a int)' from generate_series(1, 3) n \gexec
select 'drop table d_psql_g' || n from generate_series(1, 3) n \gexec
select 1 as a, 2 as b \gx
select 1 as a, 'x' as b \gdesc
