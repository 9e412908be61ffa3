\set FETCH_COUNT 100
select count(*), sum(n) from (select n from generate_series(1, 1000) n) s;
select n from generate_series(1, 7) n;
select 10 / (3 - n) from generate_series(1, 5) n;
\set FETCH_COUNT 0
begin;
declare c scroll cursor for select n from generate_series(1, 20) n;
fetch 3 from c;
fetch backward 1 from c;
move forward 5 in c;
fetch absolute 10 from c;
fetch 2 from d_psql_none;
rollback;
begin;
declare h cursor with hold for select n from generate_series(1, 5) n;
commit;
fetch 2 from h;
select name, is_holdable from pg_cursors;
fetch all from h;
close h;
fetch 1 from h;
