drop table if exists d_psql_copy;
create table d_psql_copy (id int primary key, t text);
copy d_psql_copy from stdin;
1	one
2	\N
3	tab\there
\.
copy d_psql_copy from stdin (format csv);
4,"quoted, yes"
5,
\.
copy d_psql_copy from stdin;
6	six
oops	seven
8	eight
\.
copy d_psql_copy from stdin;
1	again
\.
begin;
copy d_psql_copy from stdin;
x
\.
select 1;
rollback;
copy d_psql_copy to stdout;
copy (select * from d_psql_copy order by id desc) to stdout (format csv, header);
\copy d_psql_copy to 'copied.csv' csv
truncate d_psql_copy;
\copy d_psql_copy from 'copied.csv' csv
\copy (select count(*) from d_psql_copy) to stdout
\copy d_psql_none from 'copied.csv'
select 1 as before \; copy d_psql_copy to stdout \; select 2 as after;
select count(*) from d_psql_copy;
drop table d_psql_copy;
