//! A read over several shards whose answer one of their servers makes: what
//! each backend is asked, and when.
//!
//! The server at the place of the merge first describes the client's own
//! statement: its parameters' types, the answer's columns, and whether it is
//! valid at all are what one server says. It also describes the fragments'
//! tables. Then every shard is asked for its rows, and at last the place for
//! the answer, in the transaction in which it has said everything else.

use std::rc::Rc;

use crate::backend::{Expect, Report};
use crate::gather::{Collect, CollectLimits, Failure, Memory, Rowed};
use crate::protocol::backend::RowDescription;
use crate::protocol::encode;
use crate::protocol::frontend::Target;
use crate::route::{Explain, Foreign, Merge, PartialColumn, Scatter};
use crate::types::{Format, Oid, ShardId};

use super::events::EventEnv;
use super::scatter::{Part, ScatterPortal};

/// How far the read is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stage {
    /// The statement and its tables are described.
    Describe,
    /// The shards' partial rows are described.
    Types,
    /// The shards are asked for their rows.
    Fetch,
    /// The place makes the answer.
    Answer,
    /// Everything is here that EXPLAIN shows.
    Planned,
}

/// What a read may bring to the server that puts it together.
pub(super) struct Bringing {
    pub(super) limits: CollectLimits,
    pub(super) memory: Rc<Memory>,
}

/// A read that one server puts together.
pub(super) struct Merging {
    pub(super) stage: Stage,
    pub(super) place: ShardId,
    collect: Collect,
    /// The queries of the fragments.
    queries: Vec<Query>,
    /// Those of the shards that have rows which they don't own.
    filtered: Vec<(ShardId, Rc<Foreign>, Vec<Query>)>,
    /// The types of the client's parameters as a Parse carries them.
    types: Vec<u8>,
    /// The statement that makes the answer, and what it is bound to.
    answer: Answer,
    /// The statement has been read by the server.
    pub(super) is_bound: bool,
    /// The shards' rows are the answer's.
    streams: bool,
    /// The shards compute a part of the answer.
    combines: bool,
    /// The plans are wanted, not the answer.
    explain: Option<Explain>,
}

/// A query, and whether it uses parameters.
type Query = (Vec<u8>, bool);

/// A type and a collation, in the server's words.
type TypeWords = (Box<str>, Option<Box<str>>);

/// A statement with its parameters.
#[derive(Default)]
pub(super) struct Answer {
    pub(super) text: Vec<u8>,
    pub(super) types: Vec<u8>,
    pub(super) values: Vec<u8>,
}

impl Merging {
    /// A read of these shards, put together on the one at `at`.
    pub(super) fn new(
        merge: &Merge,
        parts: &[Part],
        at: usize,
        bringing: &Bringing,
        explain: Option<&Explain>,
    ) -> Self {
        let (limits, memory) = (bringing.limits, Rc::clone(&bringing.memory));
        let fragments = merge.fragments().len();
        let filtered = parts.iter().filter_map(|part| {
            let foreign = Rc::clone(part.foreign.as_ref()?);
            Some((part.shard, foreign, Vec::new()))
        });
        Self {
            stage: Stage::Describe,
            place: parts.get(at).map_or(ShardId::new(0), |part| part.shard),
            collect: Collect::new(parts.len(), at, fragments, limits, memory),
            queries: Vec::new(),
            filtered: filtered.collect(),
            types: Vec::new(),
            answer: Answer::default(),
            is_bound: false,
            streams: false,
            combines: false,
            explain: explain.cloned(),
        }
    }

    /// The plans of a read that streams; its backends are in their transactions.
    pub(super) fn of_stream(
        portal: &ScatterPortal,
        parts: &[Part],
        bringing: &Bringing,
        explain: &Explain,
    ) -> Self {
        let (limits, memory) = (bringing.limits, Rc::clone(&bringing.memory));
        let mut collect = Collect::new(parts.len(), 0, 0, limits, memory);
        collect.expect_no_description();
        collect.expect_plans(1, Rowed::Without);
        let text = |foreign: Option<&Foreign>| {
            portal.scatter.text_without(foreign).unwrap_or_default().into_owned()
        };
        let filtered = parts.iter().filter_map(|part| {
            let foreign = Rc::clone(part.foreign.as_ref()?);
            let query = (text(Some(&foreign)), true);
            Some((part.shard, foreign, vec![query]))
        });
        Self {
            stage: Stage::Fetch,
            place: parts.first().map_or(ShardId::new(0), |part| part.shard),
            collect,
            queries: vec![(text(None), true)],
            filtered: filtered.collect(),
            types: portal.raw_types.to_vec(),
            answer: Answer::default(),
            is_bound: false,
            streams: true,
            combines: false,
            explain: Some(explain.clone()),
        }
    }

    /// Whether plans are wanted.
    pub(super) const fn explains(&self) -> bool {
        self.explain.is_some()
    }

    /// The plan of the answer; nothing if no server makes it.
    pub(super) fn answer_plan(&self) -> impl Iterator<Item = &[u8]> {
        self.collect.lines(self.collect.place(), self.queries.len())
    }

    /// What the part at `at` was asked, with its plans.
    pub(super) fn part_plans(
        &self,
        at: usize,
        shard: ShardId,
    ) -> impl Iterator<Item = (&[u8], impl Iterator<Item = &[u8]>)> {
        let own = self.filtered.iter().find(|(filtered, ..)| *filtered == shard);
        let queries = own.map_or(&self.queries, |(_, _, queries)| queries);
        queries
            .iter()
            .enumerate()
            .map(move |(number, (text, _))| (&**text, self.collect.lines(at, number)))
    }

    /// Takes what the part at `at` said.
    pub(super) fn push(&mut self, at: usize, bytes: &[u8]) -> Result<(), Failure> {
        self.collect.push(at, bytes)
    }

    /// The error that the part at `at` has reported.
    pub(super) fn take_error(&mut self, at: usize) -> Option<Box<[u8]>> {
        self.collect.take_error(at)
    }

    /// How many queries each shard is asked for rows.
    pub(super) const fn fragments(&self) -> usize {
        self.queries.len()
    }

    /// The answer's statement.
    pub(super) const fn answer(&self) -> &Answer {
        &self.answer
    }

    /// How the answer comes to be, in words.
    pub(super) fn way(&self, scatter: &Scatter) -> &'static str {
        match (self.streams, self.combines, scatter.sorted()) {
            (true, ..) if scatter.keys().is_empty() => "T1: the router streams the shards' rows",
            (true, ..) => "T1: the router merges the shards' rows in order",
            (false, true, Some(_)) => "T2: one shard sorts the shards' first rows",
            (false, true, None) => "T2: one shard combines the shards' parts",
            (false, false, _) => "T2: one shard makes the answer of the shards' rows",
        }
    }

    /// The statement that makes the answer, if a server does.
    pub(super) fn answer_text(&self) -> Option<&[u8]> {
        (!self.streams).then_some(&*self.answer.text)
    }

    /// The answer's columns, as the client's own statement has them.
    pub(super) fn description(&self) -> Box<[u8]> {
        self.collect.told().description.clone()
    }

    /// Goes on to the next stage if all is here that it needs.
    pub(super) fn advance(&mut self, scatter: &Scatter, values: &[u8]) -> bool {
        if self.stage == Stage::Fetch && self.streams && self.collect.is_complete() {
            self.stage = Stage::Planned;
            return true;
        }
        let Some(merge) = scatter.merge().filter(|_| !self.streams) else { return false };
        match self.stage {
            Stage::Describe if self.collect.is_described() => {
                let params = &self.collect.told().params;
                self.types = params.iter().flat_map(|oid| oid.number().to_be_bytes()).collect();
                self.stage = if self.may_combine(scatter) {
                    self.collect.expect_types();
                    Stage::Types
                } else {
                    self.write_queries(scatter, merge);
                    self.expect_plans();
                    Stage::Fetch
                };
                true
            }
            Stage::Types if self.collect.is_described() => {
                self.write_queries(scatter, merge);
                self.expect_plans();
                self.stage = Stage::Fetch;
                true
            }
            Stage::Fetch if self.collect.is_complete() => {
                self.write_answer(merge, values);
                self.stage = Stage::Answer;
                if self.explains() {
                    self.collect.expect_plan_at_place();
                }
                true
            }
            Stage::Answer if self.explains() && self.collect.is_complete() => {
                self.stage = Stage::Planned;
                true
            }
            Stage::Describe | Stage::Types | Stage::Fetch | Stage::Answer | Stage::Planned => false,
        }
    }

    fn expect_plans(&mut self) {
        if let Some(explain) = &self.explain {
            let rows = if explain.runs { Rowed::With } else { Rowed::Without };
            self.collect.expect_plans(self.queries.len(), rows);
        }
    }

    /// Whether the client's parameters mean the same everywhere: the numbers of
    /// a database's own types don't.
    fn is_portable(&self) -> bool {
        self.collect.told().params.iter().all(|oid| !oid.is_own())
    }

    /// Whether the shards may do a part of the work.
    fn may_combine(&self, scatter: &Scatter) -> bool {
        let params = match (scatter.sorted(), scatter.merge().and_then(Merge::partial)) {
            (Some(_), _) if !self.filtered.is_empty() && !scatter.leaves_out() => return false,
            (Some(sorted), _) => sorted.has_params(),
            (None, Some(partial)) => partial.has_params(),
            (None, None) => return false,
        };
        self.is_portable() || !params
    }

    /// The statement that puts the answer together, if the shards compute a part
    /// of it.
    fn part(&self, scatter: &Scatter) -> Option<Vec<u8>> {
        if !self.may_combine(scatter) {
            return None;
        }
        let told = self.collect.told();
        let columns = self.partial_columns()?;
        let answer = RowDescription::decode(&told.description).ok()?;
        let names: Vec<&[u8]> = answer.iter().map(|field| field.name).collect();
        let params = told.params.len();
        match scatter.sorted() {
            Some(sorted) => sorted.statement(params, &names, &columns),
            None => scatter.merge()?.partial()?.statement(params, &names, &columns),
        }
    }

    fn write_queries(&mut self, scatter: &Scatter, merge: &Merge) {
        if let Some(text) = self.part(scatter) {
            self.answer.text = text;
            self.combines = true;
            if scatter.sorted().is_some() {
                self.collect.expect_uniform();
            }
            self.collect.collect_partial();
            self.queries.extend(part_query(scatter, None));
            for (_, foreign, queries) in &mut self.filtered {
                queries.extend(part_query(scatter, Some(foreign)));
            }
            return;
        }
        let portable = self.is_portable();
        for (index, fragment) in merge.fragments().iter().enumerate() {
            let wanted: Vec<bool> = self
                .collect
                .columns(index)
                .iter()
                .map(|column| merge.wants(fragment, &column.name))
                .collect();
            self.collect.choose(index, &wanted);
            let columns = self.collect.columns(index).iter().zip(&wanted);
            let names: Vec<&str> =
                columns.filter(|(_, wanted)| **wanted).map(|(column, _)| &*column.name).collect();
            let filtered = portable || !fragment.has_params();
            let params = filtered && fragment.has_params();
            self.queries.push((fragment.query(&names, filtered, None), params));
            for (_, foreign, queries) in &mut self.filtered {
                queries.push((fragment.query(&names, filtered, Some(foreign)), params));
            }
        }
    }

    /// The columns of the shards' partial rows.
    fn partial_columns(&self) -> Option<Vec<PartialColumn>> {
        let types = self.collect.types()?;
        let columns = types.columns.iter().zip(&types.words);
        let column =
            |((oid, modifier), (type_name, collation)): (&(Oid, i32), &TypeWords)| PartialColumn {
                oid: oid.number(),
                modifier: *modifier,
                type_name: type_name.to_string(),
                collation: collation.as_deref().map(str::to_owned),
            };
        Some(columns.map(column).collect())
    }

    fn write_answer(&mut self, merge: &Merge, values: &[u8]) {
        let params = self.collect.told().params.len();
        let fragments = self.collect.arrays();
        if self.answer.text.is_empty() {
            self.answer.text = merge.statement(params);
        }
        self.answer.types.clone_from(&self.types);
        // What the arrays are, the statement says.
        self.answer.types.extend(std::iter::repeat_n(0, 4 * fragments));
        let out = &mut self.answer.values;
        let (formats, rest) = formats(values, params);
        let count = u16::try_from(params + fragments).unwrap_or(u16::MAX);
        out.extend_from_slice(&count.to_be_bytes());
        for format in formats.into_iter().chain(std::iter::repeat_n(Format::Binary, fragments)) {
            let code: u16 = match format {
                Format::Text => 0,
                Format::Binary => 1,
            };
            out.extend_from_slice(&code.to_be_bytes());
        }
        out.extend_from_slice(&count.to_be_bytes());
        out.extend_from_slice(rest);
        for fragment in 0..fragments {
            let start = out.len();
            out.extend_from_slice(&[0; 4]);
            self.collect.write_array(fragment, out);
            let len = i32::try_from(out.len() - start - 4).unwrap_or(i32::MAX);
            if let Some(head) = out.get_mut(start..start + 4) {
                head.copy_from_slice(&len.to_be_bytes());
            }
        }
    }

    /// Asks the place to describe the statement and the fragments' tables.
    pub(super) fn ask_descriptions(&self, merge: &Merge, raw_types: &[u8], env: &mut EventEnv<'_>) {
        ask_description(merge.original(), raw_types, env);
        for fragment in merge.fragments() {
            ask_description(fragment.columns_query().as_bytes(), &[], env);
        }
        sync(env);
    }

    /// Asks the place for the types of the shards' partial rows.
    pub(super) fn ask_types(&self, scatter: &Scatter, values: &[u8], env: &mut EventEnv<'_>) {
        let answer = RowDescription::decode(&self.collect.told().description);
        let answer = answer.map_or(0, |answer| answer.count());
        let (query, params) = match (scatter.sorted(), scatter.merge().and_then(Merge::partial)) {
            (Some(sorted), _) => (sorted.types_query(answer), sorted.has_params()),
            (None, Some(partial)) => (partial.types_query(), partial.has_params()),
            (None, None) => return,
        };
        let (types, values) = if params { (&*self.types, values) } else { (&[][..], NO_VALUES) };
        ask(&query, types, values, ALL_TEXT, env);
        sync(env);
    }

    /// Asks a shard for its rows.
    pub(super) fn ask_rows(&self, values: &[u8], env: &mut EventEnv<'_>) {
        let own = self.filtered.iter().find(|(shard, ..)| *shard == env.shard);
        let queries = own.map_or(&self.queries, |(_, _, queries)| queries);
        let bound = |params: bool| match params {
            true => (&*self.types, values),
            false => (&[][..], NO_VALUES),
        };
        if self.explain.as_ref().is_none_or(|explain| explain.runs && !self.streams) {
            for (query, params) in queries {
                let (types, values) = bound(*params);
                ask(query, types, values, ALL_BINARY, env);
            }
        }
        if let Some(explain) = &self.explain {
            for (query, params) in queries {
                let (types, values) = bound(*params);
                ask(&explained(explain, query), types, values, ALL_TEXT, env);
            }
        }
        sync(env);
    }

    /// Asks the place for the plan of the answer.
    pub(super) fn ask_answer_plan(&self, env: &mut EventEnv<'_>) {
        let Some(explain) = &self.explain else { return };
        let answer = &self.answer;
        ask(&explained(explain, &answer.text), &answer.types, &answer.values, ALL_TEXT, env);
        sync(env);
    }
}

/// A query behind the words of EXPLAIN.
fn explained(explain: &Explain, query: &[u8]) -> Vec<u8> {
    [&*explain.head, query].concat()
}

/// What a shard computes of the answer, without rows that it does not own.
fn part_query(scatter: &Scatter, foreign: Option<&Foreign>) -> Option<Query> {
    if let Some(sorted) = scatter.sorted() {
        return Some((sorted.query_without(foreign)?.into_owned(), sorted.has_params()));
    }
    let partial = scatter.merge()?.partial()?;
    Some((partial.query_without(foreign).into_owned(), partial.has_params()))
}

/// Asks for a query's columns and rows.
fn ask(query: &[u8], types: &[u8], values: &[u8], formats: &[u8], env: &mut EventEnv<'_>) {
    let types = env.backend.types_here(types);
    let written = encode::parse_raw(env.to_backend, b"", query, &types).is_ok()
        && encode::bind_unnamed(env.to_backend, values, formats).is_ok()
        && encode::describe(env.to_backend, Target::Portal, b"").is_ok()
        && encode::execute(env.to_backend, b"", 0).is_ok();
    debug_assert!(written, "a part of a text that came in a message goes in one");
    env.backend.set_unnamed(None);
    env.backend.push(Expect::ParseUnnamed);
    env.backend.push(Expect::Bind(None));
    env.backend.push(Expect::Describe);
    env.backend.push(Expect::Execute(Report::Nothing));
}

fn ask_description(text: &[u8], types: &[u8], env: &mut EventEnv<'_>) {
    let types = env.backend.types_here(types);
    let written = encode::parse_raw(env.to_backend, b"", text, &types).is_ok()
        && encode::describe(env.to_backend, Target::Statement, b"").is_ok();
    debug_assert!(written, "a text that came in a message goes in one");
    env.backend.set_unnamed(None);
    env.backend.push(Expect::ParseUnnamed);
    env.backend.push(Expect::Describe);
}

fn sync(env: &mut EventEnv<'_>) {
    encode::sync(env.to_backend);
    env.backend.push(Expect::Sync);
}

/// The format of each of `count` parameters, and the values behind formats and
/// count.
fn formats(values: &[u8], count: usize) -> (Vec<Format>, &[u8]) {
    let number = |bytes: &[u8]| bytes.first_chunk::<2>().map_or(0, |b| u16::from_be_bytes(*b));
    let given = usize::from(number(values));
    let codes = values.get(2..2 + 2 * given).unwrap_or_default();
    let rest = values.get(4 + 2 * given..).unwrap_or_default();
    let (codes, _) = codes.as_chunks::<2>();
    let format = |index: usize| match (given, codes.first(), codes.get(index)) {
        (1, Some([0, 1]), _) | (_, _, Some([0, 1])) => Format::Binary,
        _ => Format::Text,
    };
    ((0..count).map(format).collect(), rest)
}

/// No parameter formats and no parameters.
const NO_VALUES: &[u8] = &[0, 0, 0, 0];
/// One format for all results: binary.
const ALL_BINARY: &[u8] = &[0, 1, 0, 1];
/// The server's own way: text.
const ALL_TEXT: &[u8] = &[0, 0];
