//! The walk over a backend's reply bytes.
//!
//! Rows and other bulk frames are passed by their length alone; only frames
//! that can change state are looked at. Adjacent forwarded frames stay one run
//! of the input, so that a plain reply leaves as the bytes that arrived.

use std::ops::Range;

use crate::protocol::backend::{ErrorFields, ParameterStatus, TxStatus};
use crate::protocol::encode::{self, ErrorReport, error_response};
use crate::protocol::error::FrameError;
use crate::protocol::frame::{HEADER_LEN, Header, decode_header};
use crate::protocol::tag::backend as tag;
use crate::types::SqlState;

use super::expect::{OwnPurpose, Report, SentAs};
use super::second::{FENCE_DETAIL, FENCED, SERIALIZATION_FAILURE, Sent, report_fence};
use super::{Backend, Event, Expect, Partial, REVALIDATE, RowShape, Tag};

/// What a walk left to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Relayed {
    /// Bytes of the input that are done with; the rest is the head of a frame
    /// that has to be seen whole, to be offered again with what follows.
    pub consumed: usize,
    /// The last run to forward, after what was written to `out`; not copied.
    pub direct: Range<usize>,
}

/// A backend whose replies make no sense; it and its client must part.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// A length that can't be one.
    Frame(FrameError),
    /// A reply that nothing asked for.
    Unexpected(u8),
    /// A message whose body is malformed.
    Malformed(u8),
}

impl std::fmt::Display for Fault {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Frame(error) => write!(f, "backend sent a bad frame: {error}"),
            Self::Unexpected(tag) => {
                write!(f, "backend sent message {:?} that nothing asked for", char::from(*tag))
            }
            Self::Malformed(tag) => {
                write!(f, "backend sent a malformed message {:?}", char::from(*tag))
            }
        }
    }
}

/// Frames larger than this are never buffered whole, whatever they are.
const STATE_FRAME_MAX: usize = 64 * 1024;

enum Verdict {
    Forward,
    Drop,
    /// A CommandComplete with this tag takes its place.
    Complete(&'static str),
}

/// What a frame means to the reply that is owed next.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Due {
    /// It is part of it, and more follows.
    More,
    /// It ends it.
    Last,
    /// That needs a closer look.
    Unclear,
}

struct Walk<'a> {
    input: &'a [u8],
    run: usize,
    out: &'a mut Vec<u8>,
}

impl Walk<'_> {
    /// Leaves out `[start, end)`.
    fn drop_frame(&mut self, start: usize, end: usize) {
        self.flush(start);
        self.run = end;
    }

    /// Says `bytes` after what was forwarded up to `at`.
    fn say(&mut self, at: usize, bytes: &[u8]) {
        self.flush(at);
        self.out.extend_from_slice(bytes);
    }

    fn flush(&mut self, end: usize) {
        if let Some(run) = self.input.get(self.run..end) {
            self.out.extend_from_slice(run);
        }
        self.run = self.run.max(end);
    }
}

impl Backend {
    /// Walks `input`, which starts where the last walk stopped. What the
    /// client gets is appended to `out`, then `input[direct]`.
    ///
    /// # Errors
    /// The replies can no longer be matched to requests: close the backend.
    pub fn relay(
        &mut self,
        input: &[u8],
        out: &mut Vec<u8>,
        events: &mut Vec<Event>,
    ) -> Result<Relayed, Fault> {
        self.second.walk(self.answered);
        let mut walk = Walk { input, run: 0, out };
        let mut at = 0;
        if self.partial.left > 0 {
            at = self.pass_partial(input, &mut walk)?;
            if self.partial.left > 0 {
                return Ok(Relayed { consumed: at, direct: walk.run..at });
            }
            // A frame that came in parts is through.
            self.say_what_is_due(at, &mut walk);
        }
        let numbered = self.translates();
        while let Some(rest) = input.get(at..) {
            let Some(header) = decode_header(rest).map_err(Fault::Frame)? else { break };
            // A body's length has 30 bits.
            let end = at + HEADER_LEN + header.body_len;
            if numbered && self.has_numbers(header.tag) {
                let Some(passed) = self.relay_numbered(header, at, &mut walk, events)? else {
                    break;
                };
                at = passed;
                if self.partial.left > 0 {
                    break;
                }
                self.say_what_is_due(at, &mut walk);
                continue;
            }
            if end <= input.len() {
                match self.plainly_due(header.tag) {
                    Due::More => {
                        self.answered = true;
                        at = end;
                        continue;
                    }
                    Due::Last => {
                        self.answered = true;
                        at = end;
                        self.say_what_is_due(at, &mut walk);
                        continue;
                    }
                    Due::Unclear => {}
                }
            }
            let bulk = is_bulk(header.tag) && !self.wants_shape(header.tag);
            if bulk || header.body_len > STATE_FRAME_MAX {
                let verdict = self.on_frame(header.tag, None, events)?;
                let forward = matches!(verdict, Verdict::Forward);
                self.answered |= forward;
                if !forward {
                    walk.drop_frame(at, end.min(input.len()));
                }
                if end > input.len() {
                    self.partial = Partial { left: end - input.len(), forward };
                    at = input.len();
                    break;
                }
                at = end;
            } else {
                let Some(body) = input.get(at + HEADER_LEN..end) else { break };
                self.on_state_frame(header.tag, body, (at, end), &mut walk, events)?;
                at = end;
            }
            self.say_what_is_due(at, &mut walk);
        }
        let direct = if walk.run < at { walk.run..at } else { at..at };
        Ok(Relayed { consumed: at, direct })
    }

    /// Knows a frame that is what is owed next, is the client's as it came, and
    /// tells nobody anything: nearly all that passes. The same as
    /// [`Backend::on_frame`] does, without its questions.
    #[inline]
    fn plainly_due(&mut self, kind: u8) -> Due {
        let Some(front) = self.queue.front() else { return Due::Unclear };
        let due = match (kind, front) {
            (tag::DATA_ROW, Expect::Query(_) | Expect::Execute(_) | Expect::FunctionCall)
            | (tag::ROW_DESCRIPTION, Expect::Query(_)) => Due::More,
            (tag::COMMAND_COMPLETE, Expect::Query(Report::Nothing))
                if self.spoken_tags.is_empty() =>
            {
                self.copy_in = false;
                Due::More
            }
            (tag::COMMAND_COMPLETE, Expect::Execute(Report::Nothing)) => {
                self.copy_in = false;
                Due::Last
            }
            (tag::BIND_COMPLETE, Expect::Bind(_))
            | (tag::ROW_DESCRIPTION, Expect::Describe)
            | (tag::PARSE_COMPLETE, Expect::Parse(_) | Expect::ParseUnnamed) => Due::Last,
            _ => Due::Unclear,
        };
        if due == Due::Last {
            self.queue.pop_front();
        }
        due
    }

    /// The rest of a frame that was relayed in part.
    fn pass_partial(&mut self, input: &[u8], walk: &mut Walk<'_>) -> Result<usize, Fault> {
        if let Some(passed) = self.pass_numbered(input, walk.out) {
            let passed = passed?;
            walk.run = passed;
            return Ok(passed);
        }
        let take = self.partial.left.min(input.len());
        self.partial.left -= take;
        if !self.partial.forward {
            walk.run = take;
        }
        Ok(take)
    }

    /// A frame at `at` in which numbers stand; where what has arrived of it ends,
    /// or `None` if it has to be seen whole.
    #[cold]
    fn relay_numbered(
        &mut self,
        header: Header,
        at: usize,
        walk: &mut Walk<'_>,
        events: &mut Vec<Event>,
    ) -> Result<Option<usize>, Fault> {
        let start = at + HEADER_LEN;
        let looked_at = self.wants_shape(header.tag) && header.body_len <= STATE_FRAME_MAX;
        let body = walk.input.get(start..start + header.body_len).filter(|_| looked_at);
        if looked_at && body.is_none() {
            return Ok(None);
        }
        let verdict = self.on_frame(header.tag, body, events)?;
        let forward = matches!(verdict, Verdict::Forward);
        self.answered |= forward;
        self.partial = Partial { left: header.body_len, forward };
        walk.flush(at);
        let head = walk.input.get(at..).unwrap_or_default();
        self.begin_numbered(header, head, walk.out);
        let rest = walk.input.get(start..).unwrap_or_default();
        let passed = self.pass_numbered(rest, walk.out).unwrap_or(Ok(0))?;
        walk.run = start + passed;
        Ok(Some(start + passed))
    }

    /// A frame that is here whole.
    fn on_state_frame(
        &mut self,
        kind: u8,
        body: &[u8],
        (start, end): (usize, usize),
        walk: &mut Walk<'_>,
        events: &mut Vec<Event>,
    ) -> Result<(), Fault> {
        if kind == tag::ERROR_RESPONSE {
            return self.on_error(body, (start, end), walk, events);
        }
        if kind == tag::READY_FOR_QUERY {
            return self.on_ready(body, (start, end), walk, events);
        }
        match self.on_frame(kind, Some(body), events)? {
            Verdict::Forward => {
                if !matches!(kind, tag::PARAMETER_STATUS | tag::NOTICE_RESPONSE) {
                    self.answered = true;
                }
            }
            Verdict::Drop => walk.drop_frame(start, end),
            Verdict::Complete(tag) => {
                walk.drop_frame(start, end);
                encode::command_complete(walk.out, tag);
                self.answered = true;
            }
        }
        Ok(())
    }

    /// Matches a frame with what is owed. `body` is `None` for bulk.
    fn on_frame(
        &mut self,
        kind: u8,
        body: Option<&[u8]>,
        events: &mut Vec<Event>,
    ) -> Result<Verdict, Fault> {
        match kind {
            tag::NOTIFICATION_RESPONSE => return Ok(Verdict::Forward),
            tag::PARAMETER_STATUS => return self.on_parameter(body, events),
            tag::NOTICE_RESPONSE => return Ok(self.unless_own()),
            tag::ERROR_RESPONSE => {
                // Too large to hold: forwarded unread, as the failure that it is.
                events.push(Event::Error { state: None, fatal: false });
                self.fail_mask();
                self.fail_batch();
                return Ok(Verdict::Forward);
            }
            _ => {}
        }
        match self.queue.front() {
            Some(Expect::Query(report)) => {
                let report = *report;
                Ok(self.on_query_frame(kind, body, report, events))
            }
            Some(Expect::OwnQuery(_)) => {
                if kind == tag::COMMAND_COMPLETE {
                    self.own_tag = body.map(Into::into);
                }
                Ok(Verdict::Drop)
            }
            Some(Expect::FunctionCall) => Ok(Verdict::Forward),
            Some(Expect::Execute(report)) => {
                let report = *report;
                self.on_execute_frame(kind, body, report, events)
            }
            Some(Expect::Describe) => match kind {
                tag::PARAMETER_DESCRIPTION => Ok(Verdict::Forward),
                tag::ROW_DESCRIPTION | tag::NO_DATA => Ok(self.met(Verdict::Forward)),
                _ => Err(Fault::Unexpected(kind)),
            },
            Some(Expect::DescribeOf(id)) => {
                let id = *id;
                self.on_shape(kind, body, Verdict::Forward, |shape| Event::Told(id, shape), events)
            }
            Some(Expect::OwnDescribe(id)) => {
                let id = *id;
                self.on_shape(kind, body, Verdict::Drop, |shape| Event::Shaped(id, shape), events)
            }
            Some(Expect::OwnColumns(id)) => match kind {
                tag::ROW_DESCRIPTION => {
                    self.described = *id;
                    Ok(self.met(Verdict::Drop))
                }
                tag::NO_DATA => {
                    self.forget_columns();
                    Ok(self.met(Verdict::Drop))
                }
                _ => Err(Fault::Unexpected(kind)),
            },
            Some(Expect::Parse(_) | Expect::ParseUnnamed) => {
                self.met_by(kind, tag::PARSE_COMPLETE, Verdict::Forward)
            }
            Some(Expect::OwnParse(_)) => self.met_by(kind, tag::PARSE_COMPLETE, Verdict::Drop),
            Some(Expect::Bind(_)) => self.met_by(kind, tag::BIND_COMPLETE, Verdict::Forward),
            Some(Expect::Close) => self.met_by(kind, tag::CLOSE_COMPLETE, Verdict::Forward),
            Some(Expect::OwnClose(_)) => self.met_by(kind, tag::CLOSE_COMPLETE, Verdict::Drop),
            Some(Expect::OwnReply(wanted)) => {
                let wanted = *wanted;
                self.met_by(kind, wanted, Verdict::Drop)
            }
            Some(Expect::OwnPrepare(_)) => self.met_by(kind, tag::COMMAND_COMPLETE, Verdict::Drop),
            // A Say never stands first: it is said as soon as it would.
            Some(Expect::Sync | Expect::Refuse(_) | Expect::Say(_) | Expect::SayNamed(_))
            | None => Err(Fault::Unexpected(kind)),
        }
    }

    /// A reply to a Describe whose shape matters.
    fn on_shape(
        &mut self,
        kind: u8,
        body: Option<&[u8]>,
        verdict: Verdict,
        event: impl FnOnce(RowShape) -> Event,
        events: &mut Vec<Event>,
    ) -> Result<Verdict, Fault> {
        match kind {
            tag::PARAMETER_DESCRIPTION => Ok(verdict),
            tag::ROW_DESCRIPTION | tag::NO_DATA => {
                let rows = body.filter(|_| kind == tag::ROW_DESCRIPTION);
                // One too large to be held is not compared.
                if kind == tag::NO_DATA || rows.is_some() {
                    events.extend(RowShape::of(rows).map(event));
                }
                Ok(self.met(verdict))
            }
            _ => Err(Fault::Unexpected(kind)),
        }
    }

    /// True for a row description that is to be looked at.
    fn wants_shape(&self, kind: u8) -> bool {
        kind == tag::ROW_DESCRIPTION
            && matches!(self.queue.front(), Some(Expect::DescribeOf(_) | Expect::OwnDescribe(_)))
    }

    fn met_by(&mut self, kind: u8, wanted: u8, verdict: Verdict) -> Result<Verdict, Fault> {
        if kind == wanted { Ok(self.met(verdict)) } else { Err(Fault::Unexpected(kind)) }
    }

    fn met(&mut self, verdict: Verdict) -> Verdict {
        self.queue.pop_front();
        verdict
    }

    fn on_query_frame(
        &mut self,
        kind: u8,
        body: Option<&[u8]>,
        report: Report,
        events: &mut Vec<Event>,
    ) -> Verdict {
        match kind {
            tag::COMMAND_COMPLETE | tag::EMPTY_QUERY_RESPONSE => {
                self.copy_in = false;
                tell(report, body, events);
                if let Some(tag) = self.spoken_tags.pop_front().flatten() {
                    return Verdict::Complete(tag);
                }
            }
            tag::COPY_IN_RESPONSE => {
                self.copy_in = true;
                events.push(Event::CopyIn(SentAs::Query));
            }
            _ => {}
        }
        Verdict::Forward
    }

    fn on_execute_frame(
        &mut self,
        kind: u8,
        body: Option<&[u8]>,
        report: Report,
        events: &mut Vec<Event>,
    ) -> Result<Verdict, Fault> {
        match kind {
            tag::DATA_ROW | tag::COPY_OUT_RESPONSE | tag::COPY_DATA | tag::COPY_DONE => {}
            tag::COMMAND_COMPLETE | tag::EMPTY_QUERY_RESPONSE => {
                self.copy_in = false;
                tell(report, body, events);
                self.queue.pop_front();
                if let Report::TagAs(tag) = report {
                    return Ok(Verdict::Complete(tag));
                }
            }
            tag::PORTAL_SUSPENDED => {
                self.queue.pop_front();
            }
            tag::COPY_IN_RESPONSE => {
                self.copy_in = true;
                // A copying server has swallowed the Sync that came with the
                // Execute: the one that counts follows the data.
                if matches!(self.queue.get(1), Some(Expect::Sync)) {
                    self.queue.remove(1);
                }
                events.push(Event::CopyIn(SentAs::Batch));
            }
            _ => return Err(Fault::Unexpected(kind)),
        }
        Ok(Verdict::Forward)
    }

    /// Notices of the router's own queries are nobody's business.
    fn unless_own(&self) -> Verdict {
        match self.queue.front() {
            Some(Expect::OwnQuery(OwnPurpose::Everywhere { first: true })) => Verdict::Forward,
            Some(
                Expect::OwnQuery(_)
                | Expect::OwnParse(_)
                | Expect::OwnClose(_)
                | Expect::OwnDescribe(_)
                | Expect::OwnColumns(_)
                | Expect::OwnReply(_)
                | Expect::OwnPrepare(_)
                | Expect::Refuse(_),
            ) => Verdict::Drop,
            Some(
                Expect::Query(_)
                | Expect::Parse(_)
                | Expect::ParseUnnamed
                | Expect::Bind(_)
                | Expect::Describe
                | Expect::DescribeOf(_)
                | Expect::Execute(_)
                | Expect::Close
                | Expect::FunctionCall
                | Expect::Sync
                | Expect::Say(_)
                | Expect::SayNamed(_),
            )
            | None => Verdict::Forward,
        }
    }

    /// What the node itself is must not flip with the node behind.
    fn on_parameter(&self, body: Option<&[u8]>, events: &mut Vec<Event>) -> Result<Verdict, Fault> {
        let Some(body) = body else { return Ok(Verdict::Drop) };
        let parameter =
            ParameterStatus::decode(body).map_err(|_| Fault::Malformed(tag::PARAMETER_STATUS))?;
        if matches!(parameter.name, b"server_version" | b"in_hot_standby") {
            return Ok(Verdict::Drop);
        }
        let verdict = self.unless_own();
        if self.dirty
            && matches!(verdict, Verdict::Forward)
            && let (Ok(name), Ok(value)) =
                (std::str::from_utf8(parameter.name), std::str::from_utf8(parameter.value))
        {
            events.push(Event::Parameter(name.to_lowercase().into(), value.into()));
        }
        Ok(verdict)
    }

    fn on_error(
        &mut self,
        body: &[u8],
        (start, end): (usize, usize),
        walk: &mut Walk<'_>,
        events: &mut Vec<Event>,
    ) -> Result<(), Fault> {
        let fields =
            ErrorFields::decode(body).map_err(|_| Fault::Malformed(tag::ERROR_RESPONSE))?;
        let state = fields.code();
        let fatal = matches!(fields.severity(), b"FATAL" | b"PANIC");
        if !fatal && let Some(purpose) = self.own_unit() {
            let frame = walk.input.get(start..end).unwrap_or_default();
            events.push(Event::OwnFailed(purpose, frame.into()));
            walk.drop_frame(start, end);
            self.fail_batch();
            return Ok(());
        }
        if !fatal && matches!(self.queue.front(), Some(Expect::Refuse(_))) {
            walk.drop_frame(start, end);
            self.refuse_now(end, walk, events);
            return Ok(());
        }
        let not_begun = matches!(self.own_unit(), Some(OwnPurpose::Prelude | OwnPurpose::Prepare));
        if fatal && (not_begun || self.second.is_possible()) {
            // The connection ends now, and the unit runs elsewhere.
            walk.drop_frame(start, end);
            return Ok(());
        }
        // A state that others may use too; what a fence says besides, they don't.
        let fenced = state == Some(FENCED)
            && fields.field(b'D').is_some_and(|d| d.starts_with(FENCE_DETAIL));
        let stale = fields.field(b'R') == Some(REVALIDATE.as_bytes())
            && state == Some(FEATURE_NOT_SUPPORTED);
        let elsewhere = !stale && (fenced || state != Some(FENCED));
        if elsewhere && self.second.takes(state, self.sent()) {
            self.swallow_ready = true;
            walk.drop_frame(start, end);
            self.fail_batch();
            return Ok(());
        }
        if stale && let Some(Expect::Bind(Some(id)) | Expect::DescribeOf(id)) = self.queue.front() {
            let id = *id;
            self.note_stale(id);
            events.push(Event::Retired(id));
            if self.replayable && !self.answered {
                self.swallow_ready = true;
                walk.drop_frame(start, end);
                self.fail_batch();
                return Ok(());
            }
        }
        if state == Some(QUERY_CANCELED)
            && let Some(reason) = self.cancel_reason.take()
        {
            walk.drop_frame(start, end);
            error_response(walk.out, &ErrorReport::error(QUERY_CANCELED, reason));
        }
        let state = if fenced {
            walk.drop_frame(start, end);
            report_fence(&fields, walk.out);
            Some(SERIALIZATION_FAILURE)
        } else {
            state
        };
        events.push(Event::Error { state, fatal });
        self.fail_mask();
        self.answered = true;
        self.fail_batch();
        Ok(())
    }

    /// How much of the running unit the server was sent.
    fn sent(&self) -> Sent {
        let ends = |expect: &Expect| matches!(expect, Expect::Sync | Expect::Query(_));
        if self.queue.iter().any(ends) { Sent::Whole } else { Sent::InPart }
    }

    /// The purpose of the unit that is running, if it is the router's own.
    fn own_unit(&self) -> Option<OwnPurpose> {
        match self.queue.front()? {
            Expect::OwnQuery(purpose) => Some(*purpose),
            Expect::OwnParse(_)
            | Expect::OwnClose(_)
            | Expect::OwnDescribe(_)
            | Expect::OwnColumns(_)
            | Expect::OwnReply(_)
            | Expect::OwnPrepare(_) => {
                self.queue.iter().find_map(|expect| match expect {
                    Expect::OwnQuery(OwnPurpose::Prepare) => Some(Some(OwnPurpose::Prepare)),
                    Expect::OwnParse(_)
                    | Expect::OwnClose(_)
                    | Expect::OwnDescribe(_)
                    | Expect::OwnColumns(_)
                    | Expect::OwnReply(_)
                    | Expect::OwnPrepare(_) => None,
                    // One of the client's: the error is its batch's.
                    Expect::OwnQuery(_)
                    | Expect::Query(_)
                    | Expect::Parse(_)
                    | Expect::ParseUnnamed
                    | Expect::Bind(_)
                    | Expect::Describe
                    | Expect::DescribeOf(_)
                    | Expect::Execute(_)
                    | Expect::Close
                    | Expect::FunctionCall
                    | Expect::Sync
                    | Expect::Say(_)
                    | Expect::SayNamed(_)
                    | Expect::Refuse(_) => Some(None),
                })?
            }
            Expect::Query(_)
            | Expect::Parse(_)
            | Expect::ParseUnnamed
            | Expect::Bind(_)
            | Expect::Describe
            | Expect::DescribeOf(_)
            | Expect::Execute(_)
            | Expect::Close
            | Expect::FunctionCall
            | Expect::Sync
            | Expect::Say(_)
            | Expect::SayNamed(_)
            | Expect::Refuse(_) => None,
        }
    }

    /// The failing statement of ours has failed: say our error instead.
    fn refuse_now(&mut self, at: usize, walk: &mut Walk<'_>, events: &mut Vec<Event>) {
        let Some(Expect::Refuse(refusal)) = self.queue.pop_front() else { return };
        walk.say(at, &refusal.frame);
        self.answered = true;
        events.push(Event::Error { state: None, fatal: false });
        self.fail_mask();
        match refusal.simple {
            // ReadyForQuery follows.
            SentAs::Query => self.queue.push_front(Expect::Query(Report::Nothing)),
            SentAs::Batch => self.fail_batch(),
        }
    }

    /// The transaction that the unit runs beside fails with it.
    const fn fail_mask(&mut self) {
        if self.mask.is_some() {
            self.mask = Some(TxStatus::Failed);
        }
    }

    /// After an error in a batch nothing is answered until its Sync; in a
    /// simple query ReadyForQuery is still owed.
    fn fail_batch(&mut self) {
        self.copy_in = false;
        while let Some(front) = self.queue.front() {
            match front {
                Expect::Query(_) | Expect::OwnQuery(_) | Expect::FunctionCall | Expect::Sync => {
                    return;
                }
                Expect::Parse(_)
                | Expect::ParseUnnamed
                | Expect::OwnParse(_)
                | Expect::Bind(_)
                | Expect::Describe
                | Expect::DescribeOf(_)
                | Expect::Execute(_)
                | Expect::Close
                | Expect::OwnClose(_)
                | Expect::OwnDescribe(_)
                | Expect::OwnColumns(_)
                | Expect::OwnReply(_)
                | Expect::OwnPrepare(_)
                | Expect::Say(_)
                | Expect::SayNamed(_)
                | Expect::Refuse(_) => {
                    self.skipping = true;
                    if let Some(expect) = self.queue.pop_front() {
                        self.forget(&expect);
                    }
                }
            }
        }
    }

    fn on_ready(
        &mut self,
        body: &[u8],
        (start, end): (usize, usize),
        walk: &mut Walk<'_>,
        events: &mut Vec<Event>,
    ) -> Result<(), Fault> {
        let status = TxStatus::decode(body).map_err(|_| Fault::Malformed(tag::READY_FOR_QUERY))?;
        let own = match self.queue.pop_front() {
            Some(Expect::Query(_) | Expect::FunctionCall | Expect::Sync) => None,
            Some(Expect::OwnQuery(purpose)) => Some(purpose),
            Some(
                Expect::Parse(_)
                | Expect::ParseUnnamed
                | Expect::OwnParse(_)
                | Expect::Bind(_)
                | Expect::Describe
                | Expect::DescribeOf(_)
                | Expect::Execute(_)
                | Expect::Close
                | Expect::OwnClose(_)
                | Expect::OwnDescribe(_)
                | Expect::OwnColumns(_)
                | Expect::OwnReply(_)
                | Expect::OwnPrepare(_)
                | Expect::Say(_)
                | Expect::SayNamed(_)
                | Expect::Refuse(_),
            )
            | None => return Err(Fault::Unexpected(tag::READY_FOR_QUERY)),
        };
        self.status = status;
        self.copy_in = false;
        self.skipping = false;
        if self.queue.is_empty() {
            self.writes.end();
        }
        if self.translates() {
            self.forget_rows();
        }
        if let Some(purpose) = own {
            walk.drop_frame(start, end);
            let tag = self.own_tag.take();
            events.push(Event::OwnDone(purpose, tag));
        } else if self.swallow_ready {
            self.swallow_ready = false;
            walk.drop_frame(start, end);
            events.push(Event::StalePlan);
        } else {
            if let Some(mask) = self.mask {
                walk.drop_frame(start, end);
                walk.out.extend_from_slice(&[tag::READY_FOR_QUERY, 0, 0, 0, 5, mask.code()]);
            }
            self.answered = true;
            events.push(Event::Ready(status));
        }
        Ok(())
    }

    #[inline]
    fn say_what_is_due(&mut self, at: usize, walk: &mut Walk<'_>) {
        if matches!(self.queue.front(), Some(Expect::Say(_) | Expect::SayNamed(_))) {
            self.say_all_that_is_due(at, walk);
        }
    }

    #[cold]
    fn say_all_that_is_due(&mut self, at: usize, walk: &mut Walk<'_>) {
        while matches!(self.queue.front(), Some(Expect::Say(_) | Expect::SayNamed(_))) {
            if let Some(Expect::Say(bytes) | Expect::SayNamed(bytes)) = self.queue.pop_front() {
                walk.say(at, &bytes);
                self.answered = true;
            }
        }
    }
}

/// Tells the session of a finished statement, if it asked.
fn tell(report: Report, body: Option<&[u8]>, events: &mut Vec<Event>) {
    match report {
        Report::Tag | Report::TagAs(_) => {
            let text = body.and_then(|b| b.strip_suffix(&[0])).unwrap_or_default();
            events.push(Event::Complete(Tag::read(text)));
        }
        Report::Nothing => {}
    }
}

const QUERY_CANCELED: SqlState = SqlState::new("57014");
const FEATURE_NOT_SUPPORTED: SqlState = SqlState::new("0A000");

/// Frames that are passed by their length: rows and COPY data of any size.
const fn is_bulk(kind: u8) -> bool {
    matches!(
        kind,
        tag::DATA_ROW | tag::COPY_DATA | tag::ROW_DESCRIPTION | tag::FUNCTION_CALL_RESPONSE
    )
}
