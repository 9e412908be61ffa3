//! EXPLAIN of a read over several shards: what each server would be asked, and
//! each server's plan, under one head.
//!
//! The read goes the way that it would go, up to the point where it would run:
//! so the tier is the one that it gets, also where only the servers' types
//! decide. With ANALYZE every part is run, and the answer's plan stands on the
//! rows that it would stand on; without, on empty arrays.

use crate::gather::{End, Output};
use crate::protocol::encode::{self, Column};
use crate::route::{Explain, Wrapping};
use crate::types::ShardId;

use super::Session;
use super::merging::{Merging, Stage};
use super::scatter::{Gathering, ScatterPortal, ScatterRead};

impl ScatterPortal {
    /// EXPLAIN, if the portal is one.
    pub(super) const fn explain(&self) -> Option<&Explain> {
        match &self.wrapping {
            Some(Wrapping::Explain(explain)) => Some(explain),
            Some(Wrapping::Copy(_) | Wrapping::Declare(_)) | None => None,
        }
    }

    /// What becomes of its rows.
    pub(super) fn output(&self) -> Output {
        match &self.wrapping {
            Some(Wrapping::Copy(copy)) => Output::Copy(copy.clone()),
            Some(Wrapping::Explain(_) | Wrapping::Declare(_)) | None => Output::Rows,
        }
    }
}

impl ScatterRead {
    /// All its backends are described and agree that the rows stream: if only
    /// plans are wanted, they are asked for them now.
    pub(super) fn plans_of_stream(&mut self) -> bool {
        let (Some(explain), None) = (self.portal.explain(), &self.merging) else { return false };
        let Some(bringing) = &self.bringing else { return false };
        let merging = Merging::of_stream(&self.portal, &self.parts, bringing, explain);
        self.merging = Some(Box::new(merging));
        true
    }

    /// True once nothing is missing of what EXPLAIN shows.
    fn is_planned(&self) -> bool {
        self.merging.as_ref().is_some_and(|merging| merging.stage == Stage::Planned)
            && !self.gather.has_failed()
    }

    fn lines(&self) -> Vec<Vec<u8>> {
        let Some(merging) = &self.merging else { return Vec::new() };
        let name = |shard: ShardId| {
            self.map.shard(shard).map_or_else(|| shard.number().to_string(), |one| one.name.clone())
        };
        let mut lines = Lines::default();
        lines.add(0, &format!("Read over shards ({})", merging.way(&self.portal.scatter)));
        let shards: Vec<String> = self.parts.iter().map(|part| name(part.shard)).collect();
        lines.add(2, &format!("Shards: {}", shards.join(", ")));
        match merging.answer_text() {
            None => lines.add(2, "Merge: in the router"),
            Some(text) => {
                lines.add(2, &format!("Merge: on shard {}", name(merging.place)));
                lines.asked(text);
                merging.answer_plan().for_each(|line| lines.add_bytes(6, line));
            }
        }
        for (at, part) in self.parts.iter().enumerate() {
            lines.add(2, &format!("Shard {}", name(part.shard)));
            for (text, plan) in merging.part_plans(at, part.shard) {
                lines.asked(text);
                plan.for_each(|line| lines.add_bytes(6, line));
            }
        }
        lines.0
    }
}

impl Session {
    /// Says the plans once they are all here and the backends at rest.
    pub(super) fn say_plans(&mut self, resting: bool, out: &mut Vec<u8>) -> Option<Gathering> {
        let read = self.scatter.as_ref().filter(|read| read.is_planned())?;
        if !resting {
            return Some(Gathering::Read);
        }
        if read.tells_shape() {
            let described = encode::row_description(out, &[Column::text("QUERY PLAN")]);
            debug_assert!(described.is_ok(), "one column can be described");
        }
        let lines = read.lines();
        for line in &lines {
            let written = encode::data_row(out, std::iter::once(Some(&**line)));
            debug_assert!(written.is_ok(), "a line that came in a row goes in one");
        }
        let rows = u64::try_from(lines.len()).unwrap_or(u64::MAX);
        self.end_scatter(Some(End::Complete(rows)), out);
        Some(Gathering::Over)
    }
}

#[derive(Default)]
struct Lines(Vec<Vec<u8>>);

impl Lines {
    fn add(&mut self, indent: usize, text: &str) {
        self.add_bytes(indent, text.as_bytes());
    }

    fn add_bytes(&mut self, indent: usize, text: &[u8]) {
        let mut line = vec![b' '; indent];
        line.extend_from_slice(text);
        self.0.push(line);
    }

    /// A statement, which may have several lines.
    fn asked(&mut self, text: &[u8]) {
        let lines = text.split(|byte| *byte == b'\n').map(<[u8]>::trim_ascii_end);
        for (number, line) in lines.filter(|line| !line.is_empty()).enumerate() {
            let line = [if number == 0 { b"Asked: " } else { &b"       "[..] }, line].concat();
            self.add_bytes(4, &line);
        }
    }
}
