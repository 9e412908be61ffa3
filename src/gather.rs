//! Many shards' replies to one read → one reply.
//!
//! A machine: bytes of each source go in, bytes for the client come out. It
//! concatenates in the order of its sources, or merges what each source has
//! sorted; it skips and counts rows, strips the columns that only carry sort
//! keys, and makes sure that the sources agree on the shape of their rows. It
//! computes nothing: whether a read may be answered in this way is the route's
//! affair.
//!
//! Each source holds [`WINDOW_BYTES`] and the row that goes past it; beyond that
//! it is not to be read from. The first failure is the whole read's, and after
//! it nothing but the failure is said.
//!
//! Sources: PostgreSQL manual, "Extended Query"; hazards 78 to 87 of
//! `docs/hazards.md`.

mod collect;
mod copy;
mod error;
mod kept;
mod key;
mod memory;
mod shape;
mod source;

#[cfg(test)]
mod simulation;

pub use collect::{Collect, CollectLimits, Rowed, TableColumn, Told, Types};
pub use error::GatherError;
pub use kept::Kept;
pub use key::{BadValue, Direction, KeyKind, Nulls, append};
pub use memory::Memory;
pub use shape::Formats;

use crate::protocol::encode;
use crate::protocol::frame::{HEADER_LEN, decode_header};
use crate::protocol::tag::backend as tag;
use crate::route::CopyOut;

use copy::Written;
use shape::Shape;
use source::{Sorted, Source, Step};

/// What is to be made of the sources' rows.
#[derive(Clone, Debug, Default)]
pub struct Plan {
    /// Each source's rows are sorted by these. Their values are columns behind
    /// the client's, and behind those stands a witness for each whose collation
    /// is told by it; none of them reaches the client.
    pub keys: Vec<SortKey>,
    /// Rows to leave out at the beginning.
    pub offset: u64,
    /// Most rows of the result.
    pub limit: Option<u64>,
    /// Rows after which the client's Execute is suspended; never zero.
    pub suspend_after: Option<u64>,
    /// The formats that the client wants.
    pub formats: Formats,
    /// Whether the client is told the shape of the rows first.
    pub describe: Describe,
    /// What the shape must be, where that is known: a RowDescription's body.
    pub expected: Option<Box<[u8]>>,
    /// What the rows become.
    pub output: Output,
}

/// What the client gets of the rows.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Output {
    /// Rows.
    #[default]
    Rows,
    /// What COPY … TO STDOUT writes of them.
    Copy(CopyOut),
}

/// One column of ORDER BY.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SortKey {
    /// ASC or DESC.
    pub direction: Direction,
    /// NULLS FIRST or LAST.
    pub nulls: Nulls,
    /// What is known of the collation, should it be text.
    pub collation: Collation,
    /// It was taken for an input column of this name; that is wrong if an
    /// output column has the name too.
    pub input: Option<Box<str>>,
}

/// What is known of the collation of a sort key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Collation {
    /// It compares bytes.
    Bytes,
    /// A column of its own tells: `b` if it compares bytes.
    Witnessed,
}

/// Whether the client gets a RowDescription before the rows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Describe {
    /// It does.
    #[default]
    Rows,
    /// It knows the shape already.
    Nothing,
}

/// Where the machine stands after it was advanced.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Progress {
    /// It needs more bytes of its sources.
    Starved,
    /// The client's buffer has enough for now.
    Full,
    /// All sources are described and agree; they wait for their Bind.
    Bind,
    /// All rows are said; the sources may still have something to say that
    /// nobody needs.
    Ended(End),
    /// Nothing but the failure is left to say.
    Failed,
}

/// How a read ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// With all its rows: so many were said.
    Complete(u64),
    /// With as many as the client's Execute asked for.
    Suspended,
}

/// Why a read failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Failure {
    /// A source said so: the whole ErrorResponse frame.
    Server(Box<[u8]>),
    /// The machine itself.
    Own(GatherError),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    Describing,
    Binding,
    Rows,
    Ended(End),
    Failed,
}

/// One read of many sources.
#[derive(Debug)]
pub struct Gather {
    plan: Plan,
    sources: Vec<Source>,
    stage: Stage,
    shape: Shape,
    /// The source that is being concatenated.
    current: usize,
    /// The client has heard of the shape, or knows it.
    has_described: bool,
    skipped: u64,
    said: u64,
    written: Written,
    failure: Option<Failure>,
}

impl Gather {
    /// A read of `sources` sources, none of which has said anything yet.
    pub fn new(plan: Plan, sources: usize) -> Self {
        Self {
            plan,
            sources: (0..sources).map(|_| Source::default()).collect(),
            stage: Stage::Describing,
            shape: Shape::default(),
            current: 0,
            has_described: false,
            skipped: 0,
            said: 0,
            written: Written::Nothing,
            failure: None,
        }
    }

    /// Takes what a source said, in pieces of any size.
    pub fn push(&mut self, source: usize, bytes: &[u8]) {
        match self.stage {
            Stage::Describing | Stage::Binding | Stage::Rows => {}
            Stage::Ended(_) | Stage::Failed => return,
        }
        let Some(one) = self.sources.get_mut(source) else { return };
        one.push(bytes);
        if one.head_len() > ROW_BYTES_MAX {
            self.fail(Failure::Own(GatherError::RowTooLong { bytes_max: ROW_BYTES_MAX }));
        }
    }

    /// A source has reported an error: it is found among what it said last.
    pub fn on_error(&mut self, source: usize) {
        let frame = self.sources.get(source).and_then(Source::find_error);
        if let Some(frame) = frame {
            self.fail(Failure::Server(frame));
        }
    }

    /// True if the source may be read from.
    pub fn wants(&self, source: usize) -> bool {
        match self.stage {
            // What comes is thrown away.
            Stage::Ended(_) | Stage::Failed => true,
            Stage::Describing | Stage::Binding | Stage::Rows => self
                .sources
                .get(source)
                .is_some_and(|one| one.buffered() < WINDOW_BYTES || !one.has_frame()),
        }
    }

    /// The read fails, unless it has failed already.
    pub fn fail(&mut self, failure: Failure) {
        if self.stage == Stage::Failed {
            return;
        }
        self.stage = Stage::Failed;
        self.failure = Some(failure);
        self.sources.iter_mut().for_each(Source::forget);
    }

    /// The failure.
    pub const fn failure(&self) -> Option<&Failure> {
        self.failure.as_ref()
    }

    /// The plan.
    pub const fn plan(&self) -> &Plan {
        &self.plan
    }

    /// Whether the client has heard nothing of it.
    pub const fn has_said_nothing(&self) -> bool {
        !self.has_described && self.skipped == 0 && self.said == 0
    }

    /// Fails in another way than it has.
    pub fn replace_failure(&mut self, failure: Failure) {
        self.stage = Stage::Failed;
        self.failure = Some(failure);
    }

    /// The failure, once.
    pub fn take_failure(&mut self) -> Option<Failure> {
        self.failure.take()
    }

    /// True if it has failed.
    pub fn has_failed(&self) -> bool {
        self.stage == Stage::Failed
    }

    /// Appends the result formats of the sources' Bind, as it carries them,
    /// and goes on to the rows.
    pub fn bind(&mut self, out: &mut Vec<u8>) {
        debug_assert_eq!(self.stage, Stage::Binding, "asked for its Bind");
        self.shape.write_formats(&self.plan.formats, out);
        self.stage = Stage::Rows;
    }

    /// Goes on as far as the bytes at hand allow; what the client gets is
    /// appended to `out`, some 64 KiB at a time.
    pub fn advance(&mut self, out: &mut Vec<u8>) -> Progress {
        if self.stage == Stage::Describing {
            self.describe(out);
        }
        if self.stage == Stage::Rows {
            let enough = out.len() + SAID_BYTES;
            while self.stage == Stage::Rows && out.len() < enough {
                match self.next_row(out) {
                    Ok(Said::Row) => {}
                    Ok(Said::Nothing) => return Progress::Starved,
                    Err(failure) => self.fail(failure),
                }
            }
        }
        match self.stage {
            Stage::Describing => Progress::Starved,
            Stage::Binding => Progress::Bind,
            Stage::Rows => Progress::Full,
            Stage::Ended(end) => Progress::Ended(end),
            Stage::Failed => Progress::Failed,
        }
    }

    // === shapes ===

    fn describe(&mut self, out: &mut Vec<u8>) {
        let mut waiting = false;
        for index in 0..self.sources.len() {
            let Some(one) = self.sources.get_mut(index) else { continue };
            if one.is_described() {
                continue;
            }
            match one.describe(notices(index, out)) {
                Ok(described) => waiting |= !described,
                Err(failure) => return self.fail(failure),
            }
        }
        if waiting {
            return;
        }
        let expected = self.plan.expected.iter().map(|body| &**body);
        let mut bodies = expected.chain(self.sources.iter().map(Source::description));
        let shaped = Shape::agreed(&mut bodies, &self.plan);
        match shaped {
            Ok(shape) => {
                self.shape = shape;
                self.stage = Stage::Binding;
            }
            Err(error) => self.fail(Failure::Own(error)),
        }
    }

    // === rows ===

    /// Tells the client the shape, once it is certain that rows follow it.
    fn say_shape(&mut self, out: &mut Vec<u8>) {
        if !self.has_described {
            match (&self.plan.output, self.plan.describe) {
                (Output::Rows, Describe::Rows) => {
                    self.shape.write_description(&self.plan.formats, out);
                }
                (Output::Rows, Describe::Nothing) => {}
                (Output::Copy(copy), describe) => {
                    // Its portal has no rows to describe.
                    if describe == Describe::Rows {
                        encode::no_data(out);
                    }
                    self.shape.write_copy_head(copy, out);
                    self.written = Written::Head;
                }
            }
        }
        self.has_described = true;
    }

    /// Says the next row, if it is known which it is.
    fn next_row(&mut self, out: &mut Vec<u8>) -> Result<Said, Failure> {
        if let Some(end) = self.end() {
            self.say_shape(out);
            self.stage = Stage::Ended(end);
            return Ok(Said::Row);
        }
        let next = if self.plan.keys.is_empty() {
            self.next_in_line(out)?
        } else {
            self.next_in_order(out)?
        };
        let Next::Source(index) = next else {
            if matches!(next, Next::NoMore) {
                self.say_shape(out);
                self.stage = Stage::Ended(End::Complete(self.said));
                return Ok(Said::Row);
            }
            return Ok(Said::Nothing);
        };
        self.say_shape(out);
        let Some(one) = self.sources.get_mut(index) else { return Ok(Said::Nothing) };
        if self.skipped < self.plan.offset {
            self.skipped += 1;
        } else {
            let row = one.head();
            match &self.plan.output {
                Output::Rows => {
                    let written = self.shape.write_row(row, out);
                    written.map_err(|_| Failure::Own(GatherError::Malformed))?;
                }
                Output::Copy(copy) => {
                    let written = self.shape.write_copied(copy, row, self.written, out);
                    written.map_err(Failure::Own)?;
                    self.written = Written::Rows;
                }
            }
            self.said += 1;
        }
        one.pass_head();
        Ok(Said::Row)
    }

    fn end(&self) -> Option<End> {
        // A server that has fetched as many as were asked for does not look
        // whether there are more.
        if self.plan.suspend_after.is_some_and(|max| self.said >= max) {
            return Some(End::Suspended);
        }
        self.plan.limit.filter(|limit| self.said >= *limit).map(|_| End::Complete(self.said))
    }

    /// One source after the other.
    fn next_in_line(&mut self, out: &mut Vec<u8>) -> Result<Next, Failure> {
        while let Some(one) = self.sources.get_mut(self.current) {
            match one.step(notices(self.current, out))? {
                Step::Row => return Ok(Next::Source(self.current)),
                Step::Starved => return Ok(Next::Unknown),
                Step::Complete => self.current += 1,
            }
        }
        Ok(Next::NoMore)
    }

    /// The smallest of all heads; among equals, of the first source.
    fn next_in_order(&mut self, out: &mut Vec<u8>) -> Result<Next, Failure> {
        let mut least: Option<usize> = None;
        for index in 0..self.sources.len() {
            let Some(one) = self.sources.get_mut(index) else { continue };
            match one.step(notices(index, out))? {
                Step::Starved => return Ok(Next::Unknown),
                Step::Complete => continue,
                Step::Row => {}
            }
            if !one.has_key() {
                let shape = &self.shape;
                let keys = &self.plan.keys;
                let sorted = one
                    .set_key(|row, key| shape.write_key(keys, row, key))
                    .map_err(Failure::Own)?;
                if sorted == Sorted::Wrong {
                    return Err(Failure::Own(GatherError::Unsorted));
                }
            }
            let smaller = match least.and_then(|at| self.sources.get(at)) {
                None => true,
                Some(best) => self.sources.get(index).is_some_and(|one| one.key() < best.key()),
            };
            if smaller {
                least = Some(index);
            }
        }
        Ok(least.map_or(Next::NoMore, Next::Source))
    }

    /// The shape of the rows: a whole RowDescription.
    pub fn write_description(&self, out: &mut Vec<u8>) {
        self.shape.write_description(&self.plan.formats, out);
    }

    /// CommandComplete or PortalSuspended of a read that has ended.
    pub fn say_end(&self, end: End, out: &mut Vec<u8>) {
        match (end, &self.plan.output) {
            (End::Complete(rows), Output::Rows) => {
                encode::command_complete(out, &format!("SELECT {rows}"));
            }
            (End::Complete(rows), Output::Copy(copy)) => {
                copy::write_end(copy, self.written, out);
                encode::command_complete(out, &format!("COPY {rows}"));
            }
            (End::Suspended, _) => encode::portal_suspended(out),
        }
    }
}

enum Said {
    Row,
    Nothing,
}

enum Next {
    Source(usize),
    NoMore,
    Unknown,
}

/// Notices of the first source reach the client, the others repeat them.
fn notices(source: usize, out: &mut Vec<u8>) -> Option<&mut Vec<u8>> {
    (source == 0).then_some(out)
}

/// Whole frame at the start of `bytes`: its tag and length.
fn whole_frame(bytes: &[u8]) -> Result<Option<(u8, usize)>, Failure> {
    match decode_header(bytes) {
        Ok(Some(header)) if bytes.len() - HEADER_LEN >= header.body_len => {
            Ok(Some((header.tag, header.frame_len())))
        }
        Ok(_) => Ok(None),
        Err(_) => Err(Failure::Own(GatherError::Malformed)),
    }
}

/// True for messages that end nothing and carry no row.
const fn is_passing(kind: u8) -> bool {
    matches!(
        kind,
        tag::PARSE_COMPLETE
            | tag::BIND_COMPLETE
            | tag::PARAMETER_DESCRIPTION
            | tag::PARAMETER_STATUS
            | tag::NOTIFICATION_RESPONSE
            | tag::READY_FOR_QUERY
    )
}

/// What a source may have buffered before it is not read from any more.
pub const WINDOW_BYTES: usize = 256 * 1024;
/// Longest row of a gathered read.
pub const ROW_BYTES_MAX: usize = 64 * 1024 * 1024;
/// About so much is said at a time.
const SAID_BYTES: usize = 64 * 1024;
