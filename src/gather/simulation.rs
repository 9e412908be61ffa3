//! A seeded simulation: sources that speak in pieces of any size, in any order,
//! and fail anywhere, against what one sorted list would say.

use super::*;
use crate::protocol::backend::{DataRow, RowDescription};
use crate::protocol::frame::decode;
use crate::types::{Format, Oid};

/// Numbers that look random and are the same for the same seed.
struct Dice(u64);

impl Dice {
    fn below(&mut self, limit: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        usize::try_from(self.0 % u64::try_from(limit.max(1)).unwrap()).unwrap()
    }
}

fn frame(kind: u8, body: &[u8]) -> Vec<u8> {
    let len = u32::try_from(body.len() + 4).unwrap();
    [&[kind][..], &len.to_be_bytes(), body].concat()
}

fn description(columns: &[(&str, u32)]) -> Vec<u8> {
    let mut body = u16::try_from(columns.len()).unwrap().to_be_bytes().to_vec();
    for (name, oid) in columns {
        body.extend(name.as_bytes());
        body.push(0);
        body.extend([0; 6]);
        body.extend(oid.to_be_bytes());
        body.extend([0, 4, 255, 255, 255, 255, 0, 0]);
    }
    frame(b'T', &body)
}

fn row(values: &[Option<&[u8]>]) -> Vec<u8> {
    let mut out = Vec::new();
    encode::data_row(&mut out, values.iter().copied()).unwrap();
    out
}

fn error(message: &str) -> Vec<u8> {
    frame(b'E', &[b"SERROR\0C57014\0M", message.as_bytes(), b"\0\0"].concat())
}

const COMPLETE: &[u8] = b"C\0\0\0\x0DSELECT 1\0";

/// One row: what the client sees, and its sort key.
#[derive(Clone, Debug, PartialEq)]
struct Row {
    seen: String,
    key: Option<i32>,
}

/// One source's whole reply, and where its rows begin.
fn reply(rows: &[Row], merged: bool, fails: Option<usize>) -> (Vec<u8>, Vec<u8>) {
    let columns: &[(&str, u32)] =
        if merged { &[("a", 25), ("k", 23), ("kb", 25)] } else { &[("a", 25)] };
    let mut head = frame(b'1', b"");
    head.extend(frame(b't', b"\0\0"));
    head.extend(description(columns));
    let mut tail = frame(b'2', b"");
    for (at, one) in rows.iter().enumerate() {
        if fails == Some(at) {
            tail.extend(error("it failed"));
            return (head, tail);
        }
        let key = one.key.map(i32::to_be_bytes);
        let mut values = vec![Some(one.seen.as_bytes())];
        if merged {
            values.extend([key.as_ref().map(|k| &k[..]), None]);
        }
        tail.extend(row(&values));
    }
    if fails.is_some() {
        tail.extend(error("it failed"));
    } else {
        tail.extend(COMPLETE);
    }
    (head, tail)
}

/// What the client has been told.
#[derive(Debug, Default)]
struct Told {
    columns: Option<usize>,
    rows: Vec<String>,
}

fn read(mut bytes: &[u8]) -> Told {
    let mut told = Told::default();
    while !bytes.is_empty() {
        let frame = decode(bytes).unwrap().expect("whole frames only");
        match frame.tag {
            b'T' => {
                assert!(told.columns.is_none() && told.rows.is_empty(), "described once, first");
                told.columns = Some(RowDescription::decode(frame.body).unwrap().count());
            }
            b'D' => {
                let row = DataRow::decode(frame.body).unwrap();
                assert_eq!(Some(row.count()), told.columns, "sort keys are stripped");
                let value = row.iter().next().unwrap().unwrap();
                told.rows.push(String::from_utf8(value.to_vec()).unwrap());
            }
            other => panic!("said {}", char::from(other)),
        }
        bytes = &bytes[frame.bytes.len()..];
    }
    told
}

struct Case {
    merged: bool,
    descending: bool,
    sources: Vec<Vec<Row>>,
    fails: Vec<Option<usize>>,
    plan: Plan,
}

fn case(dice: &mut Dice) -> Case {
    let merged = dice.below(3) > 0;
    let descending = dice.below(2) == 0;
    let count = 1 + dice.below(4);
    let mut sources = Vec::new();
    for source in 0..count {
        let mut rows: Vec<Row> = (0..dice.below(12))
            .map(|at| Row {
                seen: format!("{source}.{at}{}", "x".repeat(dice.below(40))),
                key: (dice.below(5) > 0).then(|| i32::try_from(dice.below(9)).unwrap() - 4),
            })
            .collect();
        rows.sort_by_key(|row| order(row.key, descending));
        sources.push(rows);
    }
    let failing = dice.below(3) == 0;
    let fails = sources
        .iter()
        .map(|rows| (failing && dice.below(2) == 0).then(|| dice.below(rows.len() + 1)))
        .collect();
    let key = SortKey {
        direction: if descending { Direction::Descending } else { Direction::Ascending },
        nulls: if descending { Nulls::First } else { Nulls::Last },
        collation: Collation::Witnessed,
        input: None,
    };
    let plan = Plan {
        keys: if merged { vec![key] } else { Vec::new() },
        offset: u64::try_from(if dice.below(2) == 0 { dice.below(6) } else { 0 }).unwrap(),
        limit: (dice.below(2) == 0).then(|| u64::try_from(dice.below(15)).unwrap()),
        suspend_after: (dice.below(4) == 0).then(|| u64::try_from(1 + dice.below(6)).unwrap()),
        formats: Formats::Text,
        describe: Describe::Rows,
        expected: None,
        output: Output::Rows,
    };
    Case { merged, descending, sources, fails, plan }
}

/// NULLs stand last when ascending, first when descending.
fn order(key: Option<i32>, descending: bool) -> (bool, i32) {
    match key {
        None => (!descending, 0),
        Some(key) => (descending, if descending { -key } else { key }),
    }
}

fn expected(case: &Case) -> (Vec<String>, End) {
    let mut all: Vec<&Row> = case.sources.iter().flatten().collect();
    if case.merged {
        all.sort_by_key(|row| order(row.key, case.descending));
    }
    let offset = usize::try_from(case.plan.offset).unwrap();
    let limit = case.plan.limit.map_or(usize::MAX, |l| usize::try_from(l).unwrap());
    let rows: Vec<String> =
        all.iter().skip(offset).take(limit).map(|row| row.seen.clone()).collect();
    let max = case.plan.suspend_after.map(|m| usize::try_from(m).unwrap());
    match max {
        Some(max) if rows.len() >= max => (rows[..max].to_vec(), End::Suspended),
        _ => {
            let count = u64::try_from(rows.len()).unwrap();
            (rows, End::Complete(count))
        }
    }
}

fn run(seed: u64) {
    let mut dice = Dice(seed | 1);
    let case = case(&mut dice);
    let mut gather = Gather::new(case.plan.clone(), case.sources.len());
    let replies: Vec<(Vec<u8>, Vec<u8>)> = case
        .sources
        .iter()
        .zip(&case.fails)
        .map(|(rows, fails)| reply(rows, case.merged, *fails))
        .collect();
    let mut waiting: Vec<Vec<u8>> = replies.iter().map(|(head, _)| head.clone()).collect();
    let mut out = Vec::new();
    let mut bound = false;
    let mut ended = None;
    for _ in 0..100_000 {
        match gather.advance(&mut out) {
            Progress::Bind => {
                let mut formats = Vec::new();
                gather.bind(&mut formats);
                assert_eq!(formats.len(), if case.merged { 8 } else { 4 }, "seed {seed}");
                bound = true;
                for (waiting, (_, tail)) in waiting.iter_mut().zip(&replies) {
                    waiting.extend(tail);
                }
            }
            Progress::Ended(end) => {
                ended = Some(Ok(end));
                break;
            }
            Progress::Failed => {
                ended = Some(Err(gather.take_failure()));
                break;
            }
            Progress::Starved | Progress::Full => {}
        }
        let source = dice.below(waiting.len());
        let take = dice.below(waiting[source].len() + 1);
        let piece: Vec<u8> = waiting[source].drain(..take).collect();
        gather.push(source, &piece);
        // The backend's machine tells of an error as soon as it has passed it.
        if case.fails[source].is_some() && bound && waiting[source].is_empty() {
            gather.on_error(source);
        }
    }
    let told = read(&out);
    let (rows, end) = expected(&case);
    let failing = case.fails.iter().any(Option::is_some);
    match ended.unwrap_or_else(|| panic!("seed {seed}: it never ends")) {
        Ok(seen) if !failing => {
            assert_eq!((told.rows, seen), (rows, end), "seed {seed}");
            assert_eq!(told.columns, Some(1), "seed {seed}");
        }
        // Enough rows were there before the failure.
        Ok(_) => assert!(rows.starts_with(&told.rows), "seed {seed}"),
        Err(failure) => {
            assert!(failing, "seed {seed}: {failure:?}");
            assert!(matches!(failure, Some(Failure::Server(_))), "seed {seed}");
            let so_far = told.rows.len();
            assert!(so_far <= rows.len() && rows[..so_far] == told.rows, "seed {seed}");
        }
    }
}

#[test]
fn what_is_said_is_what_one_sorted_list_would_say() {
    for seed in 1..6000 {
        run(0x9E37_79B9_7F4A_7C15_u64.wrapping_mul(seed));
    }
}

fn started(plan: Plan, heads: &[Vec<u8>]) -> (Gather, Vec<u8>, Progress) {
    let mut gather = Gather::new(plan, heads.len());
    for (source, head) in heads.iter().enumerate() {
        gather.push(source, head);
    }
    let mut out = Vec::new();
    let progress = gather.advance(&mut out);
    (gather, out, progress)
}

fn failure_of(plan: Plan, heads: &[Vec<u8>]) -> GatherError {
    let (mut gather, out, progress) = started(plan, heads);
    assert_eq!(progress, Progress::Failed);
    assert!(out.is_empty(), "nothing is said before the shapes agree");
    match gather.take_failure() {
        Some(Failure::Own(error)) => error,
        other => panic!("{other:?}"),
    }
}

fn by(input: Option<&str>) -> SortKey {
    SortKey {
        direction: Direction::Ascending,
        nulls: Nulls::Last,
        collation: Collation::Witnessed,
        input: input.map(Into::into),
    }
}

#[test]
fn columns_that_differ_between_shards_are_refused() {
    let ours = description(&[("a", 23), ("b", 16_400)]);
    for theirs in [
        description(&[("a", 23), ("b", 16_401)]),
        description(&[("a", 20), ("b", 16_400)]),
        description(&[("a", 23), ("c", 16_400)]),
        description(&[("a", 23)]),
    ] {
        let error = failure_of(Plan::default(), &[ours.clone(), theirs]);
        assert!(matches!(error, GatherError::ColumnsDiffer { .. }), "{error:?}");
        assert_eq!(error.sqlstate().as_str(), "0A000");
    }
}

#[test]
fn an_order_that_is_not_known_for_sure_is_refused() {
    let plan = |input| Plan { keys: vec![by(input)], ..Plan::default() };
    let enumeration = description(&[("a", 23), ("k", 16_400), ("kb", 25)]);
    let oid = Oid::new(16_400);
    assert_eq!(failure_of(plan(None), &[enumeration]), GatherError::OrderOfType { oid });
    let shadowed = description(&[("a", 23), ("k", 23), ("kb", 25)]);
    let name = "a".into();
    assert_eq!(failure_of(plan(Some("a")), &[shadowed]), GatherError::OrderOfName { name });
}

#[test]
fn formats_must_fit_the_columns_that_the_client_sees() {
    let formats = Formats::Each([Format::Text, Format::Binary].into());
    let plan = Plan { keys: vec![by(None)], formats, ..Plan::default() };
    let error = failure_of(plan, &[description(&[("a", 23), ("k", 23), ("kb", 25)])]);
    assert_eq!(error, GatherError::Formats { given: 2, columns: 1 });
}

#[test]
fn rows_that_are_not_sorted_end_the_read() {
    let plan = Plan { keys: vec![by(None)], ..Plan::default() };
    let head = description(&[("a", 25), ("k", 23), ("kb", 25)]);
    let (mut gather, mut out, progress) = started(plan, &[head]);
    assert_eq!(progress, Progress::Bind);
    gather.bind(&mut Vec::new());
    for key in [2_i32, 1] {
        gather.push(0, &row(&[Some(b"x"), Some(&key.to_be_bytes()), None]));
    }
    assert_eq!(gather.advance(&mut out), Progress::Failed);
    assert_eq!(gather.take_failure(), Some(Failure::Own(GatherError::Unsorted)));
    assert_eq!(read(&out).rows, ["x"]);
}

#[test]
fn text_is_merged_only_where_the_collation_compares_bytes() {
    for (witness, merges) in [(Some(&b"b"[..]), true), (None, false), (Some(b"u"), false)] {
        let plan = Plan { keys: vec![by(None)], ..Plan::default() };
        let head = description(&[("a", 25), ("k", 25), ("kb", 25)]);
        let (mut gather, mut out, progress) = started(plan, &[head]);
        assert_eq!(progress, Progress::Bind);
        gather.bind(&mut Vec::new());
        gather.push(0, &row(&[Some(b"x"), Some(b"key"), witness]));
        gather.push(0, COMPLETE);
        let progress = gather.advance(&mut out);
        if merges {
            assert_eq!(progress, Progress::Ended(End::Complete(1)));
        } else {
            assert_eq!(progress, Progress::Failed);
            assert_eq!(gather.take_failure(), Some(Failure::Own(GatherError::OrderOfText)));
            assert!(read(&out).rows.is_empty());
        }
    }
}

#[test]
fn a_source_that_has_said_enough_is_not_read_from() {
    let head = description(&[("a", 25)]);
    let (mut gather, _, _) = started(Plan::default(), &[head.clone(), head]);
    gather.bind(&mut Vec::new());
    let big = vec![b'x'; WINDOW_BYTES];
    gather.push(1, &row(&[Some(&big)])[..WINDOW_BYTES]);
    assert!(gather.wants(1), "the rest of a row is always wanted");
    gather.push(1, &row(&[Some(&big)])[WINDOW_BYTES..]);
    assert!(gather.wants(0) && !gather.wants(1));
    let mut out = Vec::new();
    gather.push(0, COMPLETE);
    assert_eq!(gather.advance(&mut out), Progress::Full);
    assert!(gather.wants(1), "its row has been passed on");
}
