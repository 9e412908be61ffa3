"""What no driver does on the wire: several Syncs in flight, Flush, row limits,
Close of the unknown, broken COPY, garbage, second startups, cancels that miss.

Transcripts (message tags, SQLSTATEs, command tags) go on `see` lines and must be
the same direct and through the router. Where Postgres only hangs up, or where
the router may speak a newer protocol than the server, a rule is checked instead.
"""

import os
import socket
import struct
import threading
import time

from checks import check, equal, main, see, url
from wire import *  # noqa: F403 - the messages are this file's vocabulary

TARGET = Target(url())


def connect(**params):
    return Wire(TARGET, **params)


def still_serves():
    """A fresh client gets an answer."""
    with connect() as wire:
        equal(wire.value("select 7"), b"7")


def refused(wire, allowed):
    """The stream ends, with nothing in it but at most one FATAL of `allowed`."""
    got = wire.to_the_end()
    if not got.endswith("closed"):
        raise AssertionError(f"not closed: {got}")
    rest = got.removesuffix("closed").strip()
    if rest and not any(rest.startswith("E{FATAL " + state) for state in allowed):
        raise AssertionError(f"unexpected answer: {rest}")
    still_serves()


# Startup


@check
def startup_reports_the_same_parameters():
    with connect() as wire:
        for name in sorted(wire.parameters):
            see(f"{name}={wire.parameters[name]}")
        if not 4 <= len(wire.key[1]) <= 256:
            raise AssertionError(f"cancel key of {len(wire.key[1])} bytes")


@check
def startup_parameters_are_set_and_reported():
    with connect(
        application_name="raw wire", TimeZone="Asia/Tokyo", DateStyle="German",
        client_encoding="LATIN1", IntervalStyle="iso_8601", search_path="pg_catalog",
        options="-c statement_timeout=12345 -c work_mem=8MB",
    ) as wire:
        for name in sorted(wire.parameters):
            see(f"{name}={wire.parameters[name]}")
        for name in ("application_name", "TimeZone", "DateStyle", "client_encoding",
                     "IntervalStyle", "search_path", "statement_timeout", "work_mem"):
            see(wire.query(f"show {name}"))
        see(wire.query("reset timezone; show timezone"))
        see(wire.query("discard all"))
        see(wire.query("show statement_timeout"))
    with connect() as wire:
        see(wire.query("show work_mem; show search_path; show timezone; show application_name"))


@check
def startup_with_a_bad_parameter_is_fatal():
    for params in ({"no_such_setting": "1"}, {"options": "-c work_mem=lots"},
                   {"DateStyle": "Martian"}, {"client_encoding": "KLINGON"}):
        with Wire(TARGET, login=False) as wire:
            wire.send(startup(TARGET, **params))
            try:
                wire.login()
                wire.run(query("select 1"))
                raise AssertionError(f"{params} was accepted")
            except Closed:
                states = [w for w in wire.log if w.startswith("E{")]
                see(states[0].split()[1] if states else "no error")


@check
def startup_ssl_and_gss_are_answered():
    with Wire(TARGET, login=False) as wire:
        wire.send(request(80877104))
        # A server built with GSSAPI says G and means it; a router always declines.
        if wire.raw(1) == b"N":
            wire.send(request(80877103))
            equal(wire.raw(1), b"N", "answer to SSLRequest")
            wire.send(startup(TARGET))
            wire.login()
            equal(wire.value("select 1"), b"1")
    with Wire(TARGET, login=False) as wire:
        wire.send(request(80877103))
        see(wire.raw(1))
        wire.send(startup(TARGET))
        wire.login()
        equal(wire.value("select 1"), b"1")


@check
def startup_plaintext_behind_sslrequest_is_refused():
    with Wire(TARGET, login=False) as wire:
        wire.send(request(80877103), startup(TARGET))
        see(wire.raw(1))
        refused(wire, ("08P01",))


@check
def startup_sslrequest_twice_is_not_served():
    with Wire(TARGET, login=False) as wire:
        wire.send(request(80877103))
        wire.raw(1)
        wire.send(request(80877103))
        wire.socket.settimeout(3)
        refused(wire, ("08P01", "0A000"))


@check
def startup_protocol_3_2_is_negotiated():
    with Wire(TARGET, login=False) as wire:
        wire.send(startup(TARGET, version=0x30002))
        wire.login()
        equal(wire.value("select 1"), b"1")
        if not 4 <= len(wire.key[1]) <= 256:
            raise AssertionError(f"cancel key of {len(wire.key[1])} bytes")


@check
def startup_unknown_minor_and_options_are_negotiated():
    with Wire(TARGET, login=False) as wire:
        wire.send(startup(TARGET, version=0x3270F, **{"_pq_.keyway_unknown": "1"}))
        tag, body = wire.message()
        while tag in "R":
            # A trusting or asking server may send the negotiation before or after.
            raise AssertionError("authentication before NegotiateProtocolVersion")
        equal(tag, "v", "first message")
        version, count = struct.unpack("!II", body[:8])
        if version & 0xFFFF not in (0, 2) or version >> 16 not in (0, 3):
            raise AssertionError(f"newest version {version:#x}")
        equal((count, body[8:]), (1, b"_pq_.keyway_unknown\0"), "unknown options")
        wire.login()
        equal(wire.value("select 1"), b"1")


@check
def startup_other_major_versions_are_refused():
    for version in (0x20000, 0x40000, 0x10000, 0x630000):
        with Wire(TARGET, login=False) as wire:
            wire.send(startup(TARGET, version=version))
            refused(wire, ("0A000", "08P01"))


@check
def startup_without_user_wrong_password_unknown_names():
    def attempt(password=None, **params):
        target = Target(url())
        target.password = password or target.password
        with Wire(target, login=False) as wire:
            wire.send(startup(target, **params))
            try:
                wire.login()
                return "logged in"
            except Closed:
                return " ".join(w for w in wire.log if w.startswith("E{"))

    for words, got in (
        ("no user", attempt(user=None)),
        ("wrong password", attempt(password="not-it")),
        ("unknown database", attempt(database="no_such_database")),
    ):
        see(f"{words}: {' '.join(got.split()[:2])}")
    unknown = attempt(user="nobody_knows_me")
    see(f"unknown user: {' '.join(unknown.split()[:2])}")
    still_serves()


@check
def startup_lengths_out_of_bounds_hang_up():
    for head in (struct.pack("!II", 4, 0x30000), struct.pack("!II", 0x7FFFFFFF, 0x30000),
                 struct.pack("!II", 0xFFFFFFFF, 0x30000), struct.pack("!II", 10_005, 0x30000),
                 b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n", bytes(64), b"\xff" * 64):
        with Wire(TARGET, login=False) as wire:
            wire.send(head)
            refused(wire, ("08P01", "0A000", "28000"))


@check
def startup_parameters_without_end_are_refused():
    body = struct.pack("!I", 0x30000) + b"user\0keyway\0database"
    with Wire(TARGET, login=False) as wire:
        wire.send(struct.pack("!I", len(body) + 4) + body)
        refused(wire, ("08P01", "28000"))


@check
def startup_half_sent_then_gone_harms_nobody():
    whole_packet = startup(TARGET)
    for cut in (1, 4, 7, len(whole_packet) - 1):
        with Wire(TARGET, login=False) as wire:
            wire.send(whole_packet[:cut])
    still_serves()


@check
def startup_twice_during_login_is_refused():
    with Wire(TARGET, login=False) as wire:
        wire.send(startup(TARGET))
        tag, body = wire.message()
        if struct.unpack("!I", body[:4])[0] == 0:
            return  # trusted: there is no middle of a login
        wire.log.clear()
        wire.send(startup(TARGET))
        refused(wire, ("08P01", "28000", "28P01"))


@check
def startup_twice_after_login_is_refused():
    with connect() as wire:
        wire.send(startup(TARGET))
        refused(wire, ("08P01",))


@check
def startup_byte_by_byte():
    with Wire(TARGET, login=False) as wire:
        wire.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for byte in startup(TARGET):
            wire.send(bytes([byte]))
        wire.login()
        for byte in whole("select $1::int + 1", "41") + SYNC + query("select 'slow'"):
            wire.send(bytes([byte]))
        wire.until("Z", 2)
        see(wire.transcript())


# Simple queries


@check
def simple_queries():
    with connect() as wire:
        for text in (
            "", ";", " -- nothing\n", "/* nothing */", ";;", "select 1", "select 1;", "select 1;;select 2",
            "select 1 as a; select 2 as b; select 3 as c",
            "select 1; select 1/0; select 3", "selec 1", "select 1; selec 2; select 3",
            "select null::int, ''::text, 'x'::bytea", "select", "table pg_no_such",
            "values (1,'a'),(2,'b')", "show transaction_isolation", "select '\u00e4\u20ac\U0001f600'",
            "do $$ begin raise notice 'hello'; raise warning 'careful' using errcode='01234', hint='h', detail='d'; end $$",
            "do $$ begin raise exception 'broken' using errcode='KW001', hint='h', detail='d', column='c', table='t'; end $$",
            "explain (costs off) select 1", "select 1\0 hidden",
        ):
            try:
                see(wire.query(text.split("\0")[0]))
            except Closed:
                see("closed")
                break


@check
def simple_transactions():
    with connect() as wire:
        wire.query("drop table if exists d_raw_tx; create table d_raw_tx (id int primary key)")
        for text in (
            "begin", "insert into d_raw_tx values (1)", "savepoint a", "insert into d_raw_tx values (1)",
            "select 1", "rollback to a", "insert into d_raw_tx values (2)", "release a", "commit",
            "begin", "select 1/0", "select 1", "commit", "commit", "rollback",
            "begin", "begin", "rollback", "begin; select 1/0; commit", "select 1", "rollback",
            "begin; insert into d_raw_tx values (3); commit; select 1/0", "select count(*) from d_raw_tx",
            "insert into d_raw_tx values (4); select 1/0", "select count(*) from d_raw_tx",
            "begin; insert into d_raw_tx values (5)", "abort and chain", "insert into d_raw_tx values (6)",
            "commit and chain", "show transaction_isolation", "end", "select array_agg(id order by id) from d_raw_tx",
            "start transaction isolation level serializable read only", "insert into d_raw_tx values (9)",
            "rollback", "set transaction read only", "savepoint b", "release b", "rollback to b",
            "begin", "savepoint c", "selec", "release c", "rollback to c", "release c", "prepare transaction 'd_raw_gid'",
            "commit prepared 'd_raw_gid'", "commit prepared 'd_raw_gid'",
            "begin; declare c cursor for select 1; fetch c; close c; commit",
            "lock table d_raw_tx", "drop table d_raw_tx",
        ):
            see(f"{text} -> {wire.query(text)}")


@check
def simple_queries_in_one_write():
    with connect() as wire:
        see(wire.run(query("select 1"), query("begin"), query("select 1/0"), query("select 2"),
                     query("rollback"), query(""), query("select 3; select 4"), ready=7))


@check
def simple_and_extended_in_one_write():
    with connect() as wire:
        see(wire.run(query("select 1"), whole("select 2"), SYNC, query("select 3"),
                     whole("select 1/0"), whole("select 9"), SYNC, query("select 4"), SYNC, SYNC, ready=7))


# Extended protocol


@check
def extended_several_syncs_in_flight():
    with connect() as wire:
        batches = [whole("select $1::int", str(n)) + SYNC for n in range(40)]
        see(wire.run(*batches, ready=40))
        batches[3] = whole("select 1/0") + whole("select 'skipped'") + SYNC
        batches[7] = parse("selec") + bind() + execute() + SYNC
        see(wire.run(*batches[:12], ready=12))
        see(wire.run(*[SYNC] * 50, ready=50))


@check
def extended_flush_answers_before_sync():
    with connect() as wire:
        wire.send(parse("select $1::text as a"), describe_statement(), FLUSH)
        wire.until("T")
        see(wire.transcript())
        wire.send(bind("x"), describe_portal(), FLUSH)
        wire.until("T")
        see(wire.transcript())
        wire.send(execute(), FLUSH)
        wire.until("C")
        see(wire.transcript())
        see(wire.run(SYNC))
        wire.send(parse("select 1/0"), bind(), execute(), FLUSH)
        wire.until("E")
        see(wire.transcript())
        see(wire.run(FLUSH, whole("select 'skipped'"), FLUSH, close_statement(""), SYNC))
        see(wire.query("select 'alive'"))


@check
def extended_batch_is_one_implicit_transaction():
    with connect() as wire:
        wire.query("drop table if exists d_raw_batch; create table d_raw_batch (id int primary key)")
        insert = [whole("insert into d_raw_batch values ($1)", str(n)) for n in (1, 2, 2)]
        see(wire.run(*insert, whole("select 'skipped'"), SYNC))
        see(wire.query("select count(*) from d_raw_batch"))
        see(wire.run(*insert[:2], SYNC))
        see(wire.query("select count(*) from d_raw_batch"))
        see(wire.run(whole("begin"), whole("insert into d_raw_batch values (7)"), whole("commit"),
                     whole("insert into d_raw_batch values (7)"), SYNC))
        see(wire.query("select count(*) from d_raw_batch"))
        see(wire.run(whole("begin"), whole("insert into d_raw_batch values (8)"), SYNC,
                     whole("insert into d_raw_batch values (8)"), SYNC,
                     whole("select 1"), SYNC, whole("commit"), SYNC, ready=4))
        see(wire.query("drop table d_raw_batch"))


@check
def extended_row_limit_suspends_and_continues():
    with connect() as wire:
        series = parse("select n from generate_series(1,5) n")
        see(wire.run(series, bind(), execute(rows=2), execute(rows=2), execute(rows=2), execute(rows=2), SYNC))
        see(wire.run(bind(), execute(rows=5), execute(rows=1), SYNC))
        see(wire.run(bind(), execute(rows=2), SYNC, execute(rows=2), SYNC, ready=2))
        see(wire.query("begin"))
        see(wire.run(parse("select n from generate_series(1,5) n", "s"), bind(name="s", portal="p"),
                     execute("p", 2), SYNC))
        see(wire.query("select 'between'"))
        see(wire.run(execute("p", 2), SYNC))
        see(wire.run(describe_portal("p"), execute("p", 2), close_portal("p"), execute("p"), SYNC))
        see(wire.query("rollback"))
        see(wire.run(bind(name="s", portal="p"), execute("p", 1), SYNC))
        see(wire.run(execute("p", 1), SYNC))
        see(wire.run(whole("insert into pg_temp.none values (1)"), SYNC))
        see(wire.run(close_statement("s"), SYNC))


@check
def extended_describe_both_kinds():
    with connect() as wire:
        see(wire.run(parse("select $1::int a, $2::text b, now() - now() c", "d"), describe_statement("d"), SYNC))
        see(wire.run(bind("1", "x", name="d", portal="d", results=(1, 0, 0)), describe_portal("d"), execute("d"), SYNC))
        see(wire.run(parse("create temp table if not exists d_raw_none (a int)", "n"), describe_statement("n"), SYNC))
        see(wire.run(parse("", "e"), describe_statement("e"), bind(name="e"), describe_portal(), execute(), SYNC))
        see(wire.run(describe_statement("unknown"), SYNC))
        see(wire.run(describe_portal("unknown"), SYNC))
        see(wire.run(msg("D", b"X", cstr("d")), SYNC))
        see(wire.run(parse("select $1 + 1", "g", (23,)), describe_statement("g"), SYNC))
        see(wire.run(parse("select $1 || $2", "h", (25, 0)), describe_statement("h"), SYNC))
        see(wire.run(parse("insert into pg_class(relname) values ($1) returning relname", "r"), describe_statement("r"), SYNC))
        see(wire.run(close_statement("d"), close_statement("n"), close_statement("e"), close_statement("g"),
                     close_statement("h"), close_statement("r"), SYNC))


@check
def extended_close_and_bind_of_unknown_things():
    with connect() as wire:
        see(wire.run(close_statement("unknown"), close_portal("unknown"), close_statement(""), close_portal(""), SYNC))
        see(wire.run(msg("C", b"X", cstr("d")), SYNC))
        see(wire.run(bind(name="unknown"), execute(), SYNC))
        see(wire.run(execute("unknown"), SYNC))
        see(wire.run(parse("select 1", "twice"), SYNC))
        see(wire.run(parse("select 2", "twice"), SYNC))
        see(wire.run(bind(name="twice"), execute(), SYNC))
        see(wire.run(close_statement("twice"), parse("select 3", "twice"), bind(name="twice"), execute(), SYNC))
        see(wire.run(parse("select 1/0 from", "bad"), SYNC))
        see(wire.run(bind(name="bad"), execute(), SYNC))
        see(wire.run(parse("select 1; select 2"), SYNC))
        see(wire.query("begin"))
        see(wire.run(bind(name="twice", portal="q"), SYNC))
        see(wire.run(bind(name="twice", portal="q"), SYNC))
        see(wire.query("rollback"))


@check
def extended_unnamed_statement_lives_until_replaced():
    with connect() as wire, connect() as other:
        see(wire.run(parse("select 'kept'"), SYNC))
        other.run(parse("select 'other'"), bind(), execute(), SYNC)
        see(wire.run(bind(), execute(), SYNC))
        see(wire.run(bind(), execute(), SYNC))
        see(wire.query("select 'simple'"))
        see(wire.run(bind(), execute(), SYNC))
        see(wire.run(parse("select 'again'"), parse("selec"), SYNC))
        see(wire.run(bind(), execute(), SYNC))


@check
def extended_bind_mistakes():
    with connect() as wire:
        see(wire.run(parse("select $1::int + $2::int", "b"), SYNC))
        for wrong in (
            bind("1", name="b"), bind("1", "2", "3", name="b"), bind("1", "x", name="b"),
            bind("1", "2", name="b", formats=(7,)), bind("1", "2", name="b", formats=(0, 0, 0)),
            bind(b"\0\0\0\1", b"\0\1", name="b", formats=(1,)), bind("1", "2", name="b", results=(9,)),
            bind("1", "2", name="b", results=(0, 0)), bind("1", "9999999999", name="b"),
        ):
            see(wire.run(wrong, execute(), SYNC))
        see(wire.run(bind(None, "2", name="b"), execute(), SYNC))
        see(wire.run(bind(b"\0\0\0\1", "2", name="b", formats=(1, 0), results=(1,)), execute(), SYNC))
        see(wire.run(bind(b"\0\0\0\1", b"\0\0\0\2", name="b", formats=(1,), results=(1,)), execute(), SYNC))


@check
def extended_broken_bodies():
    with connect() as wire:
        good = bind("1", "2", name="b")
        wire.run(parse("select $1::int + $2::int", "b"), SYNC)
        for broken in (
            msg("B"), msg("B", b"\0"), msg("B", good[5:-3]), msg("B", good[5:-8]), msg("B", good[5:], b"junk"),
            msg("P", b"no end"), msg("P", cstr("s"), cstr("select 1")), msg("P", cstr("s"), cstr("select 1"), b"\0\5\0"),
            msg("D"), msg("D", b"S"), msg("D", b"Sname"), msg("C"), msg("E"), msg("E", cstr("")), msg("E", cstr(""), b"\0\0"),
            msg("B", cstr(""), cstr("b"), struct.pack("!HHi", 0, 2, -2)),
            msg("B", cstr(""), cstr("b"), struct.pack("!HHi", 0, 2, 0x7FFFFFFF), b"1"),
        ):
            see(wire.run(broken, SYNC))
        see(wire.query("select 'alive'"))


@check
def extended_broken_query_and_sync_bodies():
    for broken, ready in ((msg("Q", b"select 1"), 1), (msg("Q"), 1), (msg("S", b"x"), 1), (msg("Q", cstr("select 1"), b"x"), 1)):
        with connect() as wire:
            wire.socket.settimeout(2)
            wire.send(broken, SYNC)
            try:
                wire.until("Z", ready)
                wire.until("Z", 1)
                see(wire.transcript())
            except (Closed, TimeoutError) as error:
                see(f"{wire.transcript()} {type(error).__name__}")


# Statements and sessions


@check
def statements_of_two_clients_do_not_meet():
    with connect() as a, connect() as b, connect() as c:
        see(a.run(parse("select 'a' || $1", "s", (25,)), SYNC))
        see(b.run(parse("select 'b', $1::int", "s"), SYNC))
        for _ in range(3):
            see(a.run(bind("1", name="s"), describe_portal(), execute(), SYNC))
            see(b.run(bind("2", name="s"), describe_portal(), execute(), SYNC))
            see(c.run(bind("3", name="s"), execute(), SYNC))
        see(b.run(close_statement("s"), SYNC))
        see(b.run(bind("2", name="s"), execute(), SYNC))
        see(a.run(bind("4", name="s"), execute(), SYNC))


@check
def statements_by_the_hundreds():
    with connect() as a, connect() as b:
        for n in range(300):
            a.send(parse(f"select {n} + $1::int", f"s{n}"), SYNC)
            b.send(parse(f"select {n} - $1::int", f"s{n}"), SYNC)
        a.until("Z", 300)
        b.until("Z", 300)
        a.log.clear()
        b.log.clear()
        for n in reversed(range(300)):
            equal(f"D[{n + 1}]" in a.run(bind("1", name=f"s{n}"), execute(), SYNC), True, f"s{n} of a")
            equal(f"D[{n - 1}]" in b.run(bind("1", name=f"s{n}"), execute(), SYNC), True, f"s{n} of b")
        batch = b"".join(bind("5", name=f"s{n}") + execute() for n in range(300))
        got = a.run(batch, SYNC)
        for n in range(300):
            equal(f"D[{n + 5}]" in got, True, f"s{n} in a batch")


@check
def statements_in_sql_and_protocol_are_one():
    with connect() as wire, connect() as other:
        see(wire.query("prepare q (int) as select $1 + 1"))
        see(wire.run(describe_statement("q"), bind("1", name="q"), execute(), SYNC))
        see(wire.run(parse("select $1::int + 2", "p"), SYNC))
        see(other.query("execute p(1)"))
        see(wire.query("execute p(1)"))
        see(wire.query("prepare p as select 1"))
        see(wire.run(parse("select 1", "q"), SYNC))
        see(wire.query("deallocate p"))
        see(wire.query("deallocate p"))
        see(wire.run(bind("1", name="p"), execute(), SYNC))
        see(wire.run(close_statement("q"), SYNC))
        see(wire.query("execute q(1)"))
        see(wire.run(parse("select 5", "r"), SYNC))
        see(wire.query("deallocate all"))
        see(wire.run(bind(name="r"), execute(), SYNC))
        see(wire.run(parse("select 6", "r"), bind(name="r"), execute(), SYNC))
        see(wire.query("discard all"))
        see(wire.run(bind(name="r"), execute(), SYNC))
        see(wire.run(parse("select 7", "r"), parse("deallocate all"), bind(), execute(), bind(name="r"), SYNC))
        see(wire.run(parse("select 8", "r"), bind(name="r"), execute(), SYNC))
        see(wire.run(parse("discard plans"), bind(), execute(), bind(name="r"), execute(), SYNC))


@check
def statements_are_listed_by_their_names():
    with connect() as wire:
        wire.query("prepare q (int) as select $1 + 1")
        wire.run(parse("select $1::int + 2", "p"), SYNC)
        see(wire.query("select name, statement, parameter_types, from_sql from pg_prepared_statements order by name"))


@check
def statements_made_in_a_transaction_outlive_its_rollback():
    with connect() as wire, connect() as other:
        see(wire.query("begin"))
        see(wire.run(parse("select 'in'", "t"), SYNC))
        see(wire.query("prepare u as select 'u'"))
        see(wire.query("rollback"))
        other.query("select 1")
        see(wire.run(bind(name="t"), execute(), SYNC))
        see(wire.query("execute u"))
        see(wire.query("begin"))
        see(wire.query("deallocate u"))
        see(wire.query("rollback"))
        see(wire.query("execute u"))
        see(wire.query("begin; select 1/0"))
        see(wire.run(parse("select 1", "v"), bind(name="v"), execute(), SYNC))
        see(wire.run(bind(name="t"), execute(), SYNC))
        see(wire.run(close_statement("t"), SYNC))
        see(wire.run(parse("rollback"), bind(), execute(), SYNC))
        see(wire.run(bind(name="t"), execute(), SYNC))


@check
def statements_survive_ddl():
    with connect() as wire, connect() as other:
        other.query("drop table if exists d_raw_ddl; create table d_raw_ddl (a int); insert into d_raw_ddl values (1)")
        wire.run(parse("select * from d_raw_ddl", "star"), SYNC)
        see(wire.run(bind(name="star"), execute(), SYNC))
        other.query("alter table d_raw_ddl add column b int default 2")
        first = wire.run(bind(name="star"), describe_portal(), execute(), SYNC)
        if "0A000" not in first and "D[1|2]" not in first:
            raise AssertionError(f"neither 0A000 nor the new shape: {first}")
        see(wire.run(close_statement("star"), parse("select * from d_raw_ddl", "star"),
                     bind(name="star"), describe_portal(), execute(), SYNC))
        wire.run(parse("select a from d_raw_ddl", "a"), bind(name="a"), execute(), SYNC)
        other.query("alter table d_raw_ddl alter a type bigint")
        got = wire.run(bind(name="a"), describe_portal(), execute(), SYNC)
        if "0A000" not in got and "D[1]" not in got:
            raise AssertionError(got)
        other.query("drop table d_raw_ddl; create table d_raw_ddl (b int); insert into d_raw_ddl values (9)")
        see(wire.run(parse("select * from d_raw_ddl"), bind(), describe_portal(), execute(), SYNC))
        see(wire.run(parse("select a from d_raw_ddl", "gone"), SYNC))
        other.query("drop table d_raw_ddl")


@check
def statements_made_after_ddl_have_the_new_shape():
    star = "select * from d_raw_shape"
    with connect() as a, connect() as b, connect() as other:
        other.query("drop table if exists d_raw_shape; create table d_raw_shape (a int); insert into d_raw_shape values (1)")
        for n, ddl in enumerate((
            "alter table d_raw_shape add column b int default 2",
            "begin; alter table d_raw_shape add column c int default 3; commit",
            "alter table d_raw_shape drop column b",
        )):
            for wire in (a, b):
                see(wire.run(parse(star, f"before{n}"), describe_statement(f"before{n}"), bind(name=f"before{n}"), execute(), SYNC))
            see(other.query(ddl))
            for wire in (a, b):
                see(wire.run(parse(star, f"after{n}"), describe_statement(f"after{n}"), bind(name=f"after{n}"), execute(), SYNC))
        see(other.run(whole("alter table d_raw_shape add column d int default 4"), SYNC))
        see(b.run(parse(star, "last"), describe_statement("last"), bind(name="last"), execute(), SYNC))
        other.query("drop table d_raw_shape")


@check
def statements_whose_plan_went_stale_are_made_anew():
    star = "select * from d_raw_stale"
    past_the_router = Target(os.environ.get("KEYWAY_TEST_DIRECT_URL") or url())
    with connect() as a, connect() as b, Wire(past_the_router) as other:
        other.query("drop table if exists d_raw_stale; create table d_raw_stale (a int); insert into d_raw_stale values (1)")
        see(a.run(parse(star, "s"), describe_statement("s"), bind(name="s"), execute(), SYNC))
        see(a.query("prepare p as select * from d_raw_stale"))
        see(a.query("execute p"))
        other.query("alter table d_raw_stale add column b int default 2")
        see(a.query("begin"))
        see(a.run(bind(name="s"), execute(), SYNC))
        see(a.query("select 1"))
        see(a.query("rollback"))
        see(b.run(parse(star, "s"), describe_statement("s"), bind(name="s"), execute(), SYNC))
        see(a.run(close_statement("s"), parse(star, "s"), describe_statement("s"), bind(name="s"), execute(), SYNC))
        see(a.query("execute p"))
        see(a.query("deallocate p; "))
        see(a.query("prepare p as select * from d_raw_stale"))
        see(a.query("execute p"))
        other.query("drop table d_raw_stale")


@check
def settings_are_reported_and_stay_at_home():
    with connect() as wire, connect() as other:
        for text in (
            "set application_name = 'one'", "set timezone = 'Asia/Tokyo'", "set datestyle = 'SQL, DMY'",
            "set work_mem = '5MB'", "begin; set local timezone = 'UTC'", "show timezone", "commit", "show timezone",
            "begin; set timezone = 'Europe/Paris'", "rollback", "show timezone",
            "begin", "set application_name='two'", "savepoint s", "set application_name='three'", "rollback to s",
            "commit", "show application_name", "select set_config('application_name', 'four', false)",
            "show application_name", "select set_config('work_mem', '6MB', true)", "show work_mem",
            "set intervalstyle = 'iso_8601'; select 1/0", "show intervalstyle",
            "set nonsense = 1", "set my.own = 'x'", "show my.own", "select current_setting('my.own')",
            "reset timezone", "set client_encoding = 'LATIN1'", "select '\u00e4'::text", "reset client_encoding",
            "set session authorization default", "set standard_conforming_strings = off", r"select 'a\'b'",
            "set standard_conforming_strings = on",
        ):
            see(f"{text} -> {wire.query(text)}")
            got = other.query("show timezone; show work_mem; show application_name")
            equal("S(" in got, False, f"a report reached the other client after {text}: {got}")
        see(wire.run(whole("set application_name = 'ext'"), whole("show application_name"), SYNC))
        see(wire.run(whole("select set_config($1, $2, false)", "timezone", "Asia/Seoul"), SYNC))
        see(other.query("show timezone; show application_name; select current_setting('my.own', true)"))
        see(wire.query("show timezone"))
        see(wire.query("reset all"))
        see(wire.query("show timezone; show work_mem"))
        see(wire.query("set application_name = 'five'"))
        see(wire.query("discard all"))
        see(wire.query("show application_name"))


# COPY


@check
def copy_both_ways_in_simple_protocol():
    with connect() as wire:
        wire.query("drop table if exists d_raw_copy; create table d_raw_copy (a int primary key, b text)")
        wire.send(query("copy d_raw_copy from stdin"))
        wire.until("G")
        see(wire.run(copy_data("1\tone\n2\ttw"), copy_data("o\n"), COPY_DONE))
        see(wire.query("copy d_raw_copy to stdout"))
        see(wire.query("copy (select * from d_raw_copy) to stdout (format binary)"))
        wire.send(query("copy d_raw_copy from stdin; select count(*) from d_raw_copy; copy d_raw_copy to stdout"))
        wire.until("G")
        see(wire.run(copy_data("3\tthree\n"), COPY_DONE))
        see(wire.run(query("copy d_raw_copy from stdin"), copy_data("4\tfour\n"), COPY_DONE, query("select 'next'"), ready=2))
        see(wire.run(query("copy d_raw_copy from stdin"), FLUSH, SYNC, copy_data("5\tfive\n"), COPY_DONE))
        see(wire.query("select count(*) from d_raw_copy"))


@check
def copy_failures_in_simple_protocol():
    with connect() as wire:
        wire.query("drop table if exists d_raw_copy; create table d_raw_copy (a int primary key, b text)")
        start = query("copy d_raw_copy from stdin")
        see(wire.run(start, copy_data("1\tone\n"), copy_fail("changed my mind")))
        see(wire.run(start, copy_data("x\tone\n"), copy_data("2\ttwo\n"), copy_data("3\tthree\n"), COPY_DONE))
        see(wire.query("select 'alive'"))
        see(wire.run(start, copy_data("1\tone\n1\ttwo\n"), copy_data("more\n"), copy_fail("late")))
        see(wire.query("select 'alive'"))
        see(wire.run(start, copy_data("1\n"), COPY_DONE, query("select 'next'"), ready=2))
        wire.send(start, copy_data("1\tx\n"), query("select 'not now'"))
        wire.socket.settimeout(1)
        see(wire.to_the_end())
    with connect() as wire:
        see(wire.query("copy d_raw_no_such from stdin"))
        see(wire.run(copy_data("late"), COPY_DONE, copy_fail("late"), query("select 'alive'")))
        see(wire.query("begin"))
        see(wire.run(start, copy_data("x\n"), COPY_DONE))
        see(wire.query("rollback"))
        see(wire.query("select count(*) from d_raw_copy"))


@check
def copy_in_extended_protocol():
    with connect() as wire:
        wire.query("drop table if exists d_raw_copy; create table d_raw_copy (a int primary key, b text)")
        start = whole("copy d_raw_copy from stdin")
        wire.send(start, FLUSH)
        wire.until("G")
        see(wire.run(copy_data("1\tone\n"), COPY_DONE, SYNC))
        see(wire.run(start, copy_data("2\ttwo\n"), COPY_DONE, whole("select 'same batch'"), SYNC))
        see(wire.run(start, copy_data("x\n"), copy_data("3\tthree\n"), COPY_DONE, whole("select 'skipped'"), SYNC))
        see(wire.run(start, copy_data("4\tfour\n"), copy_fail("no"), whole("select 'skipped'"), SYNC))
        see(wire.run(start, SYNC, SYNC, copy_data("5\tfive\n"), COPY_DONE, SYNC))
        see(wire.query("select array_agg(a order by a) from d_raw_copy"))
        see(wire.run(whole("copy d_raw_copy to stdout"), SYNC))
        see(wire.run(whole("copy d_raw_copy to stdout"), whole("select 'behind'"), SYNC))


@check
def copy_broken_off_by_a_vanished_client():
    with connect() as wire:
        wire.query("drop table if exists d_raw_gone; create table d_raw_gone (a int)")
        for ending in (b"", TERMINATE):
            gone = connect()
            gone.send(query("copy d_raw_gone from stdin"))
            gone.until("G")
            gone.send(copy_data("1\n2\n"), ending)
            gone.close()
        for _ in range(100):
            if wire.value("select count(*) from pg_locks where relation = 'd_raw_gone'::regclass") == b"0":
                break
            time.sleep(0.05)
        see(wire.query("select count(*) from d_raw_gone"))
        see(wire.query("drop table d_raw_gone"))


# Odd messages


@check
def function_call():
    def call(oid, *arguments):
        body = struct.pack("!IHHH", oid, 1, 1, len(arguments))
        for argument in arguments:
            body += struct.pack("!I", len(argument)) + argument
        return msg("F", body, struct.pack("!H", 1))

    with connect() as wire:
        int4pl, two, three = 177, struct.pack("!i", 2), struct.pack("!i", 3)
        see(wire.run(call(int4pl, two, three)))
        see(wire.run(call(1, two)))
        see(wire.run(call(int4pl, two)))
        see(wire.run(msg("F", b"\0\0")))
        see(wire.run(call(int4pl, two, three), query("select 'next'"), ready=2))
        see(wire.query("begin"))
        see(wire.run(call(int4pl, two, three)))
        see(wire.query("rollback"))


@check
def garbage_after_login_hangs_up():
    for bytes_sent in (b"!\0\0\0\4", b"\0\0\0\0\x08", b"Q\0\0\0\3", b"Q\xff\xff\xff\xff", b"Q\x7f\xff\xff\xff",
                       b"P\x7f\xff\xff\xff", b"\xff" * 32, b"X\0\0\0\4trailing", b"p\0\0\0\5x", bytes(100)):
        with connect() as wire:
            wire.send(bytes_sent)
            refused(wire, ("08P01",))


@check
def garbage_in_a_transaction_rolls_it_back():
    with connect() as other:
        other.query("drop table if exists d_raw_garbage; create table d_raw_garbage (a int)")
        for ending in (b"!\0\0\0\4", b"Q\0\0\0\1", TERMINATE, b"Q\0\0\1\0half a query", b""):
            with connect() as wire:
                wire.query("begin; insert into d_raw_garbage values (1)")
                wire.send(ending)
                if ending == b"!\0\0\0\4":
                    refused(wire, ("08P01",))
        for _ in range(100):
            if other.value("select count(*) from pg_locks where relation = 'd_raw_garbage'::regclass") == b"0":
                break
            time.sleep(0.05)
        see(other.query("select count(*) from d_raw_garbage"))
        see(other.query("drop table d_raw_garbage"))


@check
def copy_messages_outside_of_copy_are_ignored():
    with connect() as wire:
        see(wire.run(copy_data("x"), COPY_DONE, copy_fail("x"), query("select 1")))
        see(wire.run(whole("select 2"), copy_data("x"), whole("select 3"), COPY_DONE, SYNC))


# Cancel


@check
def cancel_reaches_the_running_statement():
    with connect() as wire:
        wire.send(query("select pg_sleep(20)"))
        time.sleep(0.2)
        see(wire.cancel())
        wire.until("Z")
        see(wire.transcript())
        see(wire.query("begin"))
        wire.send(whole("select pg_sleep(20)"), whole("select 'skipped'"), SYNC)
        time.sleep(0.2)
        wire.cancel()
        wire.until("Z")
        see(wire.transcript())
        see(wire.query("select 1"))
        see(wire.query("rollback"))


@check
def cancel_with_a_wrong_key_reaches_nobody():
    with connect() as wire:
        wire.send(query("select pg_sleep(1), 'unharmed'"))
        time.sleep(0.1)
        pid, secret = wire.key
        wrong = bytes([secret[0] ^ 1]) + secret[1:]
        for key in ((pid, wrong), (bytes(4), secret), (pid, secret[:-1]), (pid, secret + b"\0"), (pid, b""), (pid, bytes(300))):
            equal(wire.cancel(key), "closed", "answer to a wrong key")
        wire.until("Z")
        see(wire.transcript())


@check
def cancel_when_idle_reaches_nobody():
    stop = threading.Event()
    failures = []

    def others():
        with connect() as wire:
            while not stop.is_set():
                got = wire.query("select pg_sleep(0.005)")
                if "57014" in got:
                    failures.append(got)

    threads = [threading.Thread(target=others) for _ in range(6)]
    for thread in threads:
        thread.start()
    with connect() as wire:
        for _ in range(40):
            equal("D[1]" in wire.query("select 1"), True)
            wire.cancel()
            time.sleep(0.005)
            got = wire.query("select 2")
            # Postgres may deliver a cancel to this session's own next statement.
            if "D[2]" not in got and "57014" not in got:
                raise AssertionError(got)
    stop.set()
    for thread in threads:
        thread.join()
    equal(failures, [], "others' cancelled statements")


@check
def cancel_of_a_closed_session_reaches_nobody():
    wire = connect()
    wire.query("select 1")
    wire.send(TERMINATE)
    wire.close()
    with connect() as other:
        other.send(query("select pg_sleep(0.5), 'unharmed'"))
        for _ in range(5):
            wire.cancel()
        other.until("Z")
        see(other.transcript())


# Size and speed


@check
def large_messages_both_ways():
    with connect() as wire:
        text = "x" * 3_000_000
        see(wire.query(f"select length('{text}')"))
        see(wire.run(whole("select length($1), md5($1)", text), SYNC))
        see(wire.query("select repeat('y', 5000000)"))
        see(wire.run(parse("select octet_length($1::bytea)"), bind(bytes(20_000_000), formats=(1,)), execute(), SYNC))
        see(wire.run(*[whole("select length($1)", text[:500_000]) for _ in range(8)], SYNC))
        see(wire.query("select " + ",".join(str(n) for n in range(1500))))


@check
def slow_reader_gets_everything():
    with connect() as wire, connect() as other:
        wire.send(query("select n, repeat('z', 200) from generate_series(1, 100000) n"))
        for _ in range(5):
            time.sleep(0.1)
            equal(other.value("select 1"), b"1", "the other client's answer")
        count = 0
        tag = None
        while tag != "Z":
            tag, body = wire.message()
            if tag == "D":
                count += 1
                equal(row(body)[0], str(count).encode(), "row number")
        equal(count, 100_000, "rows")


@check
def gone_in_mid_result_harms_nobody():
    for _ in range(5):
        wire = connect()
        wire.send(query("select n, repeat('z', 200) from generate_series(1, 200000) n"))
        wire.until("D")
        wire.close()
    for _ in range(3):
        wire = connect()
        wire.send(query("select pg_sleep(30)"))
        time.sleep(0.05)
        wire.close()
    still_serves()


@check
def notifications_reach_the_listener():
    with connect() as wire, connect() as other:
        see(wire.query("listen d_raw_channel"))
        see(other.query("notify d_raw_channel, 'hello'"))
        wire.until("A")
        see(wire.transcript())
        see(wire.query("notify d_raw_channel, 'self'"))
        see(wire.query("begin; notify d_raw_channel, 'later'; select 1"))
        see(wire.query("commit"))
        see(wire.query("unlisten *"))
        other.query("notify d_raw_channel, 'nobody'")
        see(wire.query("select 1"))


@check
def what_holds_the_backend():
    with connect() as wire, connect() as other:
        for text in (
            "create temp table d_raw_temp (a int)", "insert into d_raw_temp values (1)", "select * from d_raw_temp",
            "declare d_raw_hold cursor with hold for select n from generate_series(1,4) n", "fetch 2 from d_raw_hold",
            "fetch 2 from d_raw_hold", "close d_raw_hold", "select pg_advisory_lock(77001)",
            "select pg_advisory_unlock(77001)", "select pg_advisory_unlock(77001)", "drop table d_raw_temp",
            "create temp sequence d_raw_seq", "select nextval('d_raw_seq')", "select currval('d_raw_seq'), lastval()",
            "discard temp", "select nextval('d_raw_seq')", "discard sequences",
        ):
            see(f"{text} -> {wire.query(text)}")
            equal("D[2]" in other.query("select 2"), True)
        see(wire.query("select pg_advisory_lock(77002)"))
        see(other.query("select pg_try_advisory_lock(77002)"))
        wire.send(TERMINATE)
        wire.close()
        for _ in range(100):
            if other.value("select pg_try_advisory_lock(77002)") == b"t":
                break
            time.sleep(0.05)
        else:
            raise AssertionError("the lock of a client that left is still held")
        see(other.query("select pg_advisory_unlock(77002)"))


@check
def what_a_sequence_gave_last_is_known_in_its_transaction():
    with connect() as wire, connect() as other:
        wire.query("drop sequence if exists d_raw_last; create sequence d_raw_last")
        for text in ("begin", "select nextval('d_raw_last')", "select currval('d_raw_last'), lastval()", "commit"):
            see(f"{text} -> {wire.query(text)}")
            other.query("select 2")


@check
def what_a_sequence_gave_last_is_never_anothers():
    with connect() as wire, connect() as other:
        wire.query("drop sequence if exists d_raw_last; create sequence d_raw_last")
        wire.query("select nextval('d_raw_last')")
        see(other.query("select lastval()"))
        see(other.query("select currval('d_raw_last')"))
        wire.query("drop sequence d_raw_last")


main()
