//! The monitor's judgement: samples go in, verdicts and a cluster snapshot
//! come out.
//!
//! Knows no sockets and no clock: who asks the nodes passes what they said and
//! when the question was begun. The rules:
//! - only the primary's *insert* position is at or past every commit that was
//!   acknowledged before the sample, whatever `synchronous_commit` says;
//! - samples are ordered by number, counted before the request is sent; an
//!   answer's own time decides nothing;
//! - a replica has proven the newest sample at or below its replay position;
//!   its lag is that sample's age;
//! - proofs belong to one life of the primary (a *lineage*: system, timeline,
//!   start time, monitor connection) and one incarnation of the replica, and
//!   are given only to replicas that have shown the lineage's marker;
//! - a node that fails or breaks clients' connections is passed over while
//!   others can serve, and comes back after probes, not after a time;
//! - a node that shows itself as a primary gets the writes; two of them get
//!   none, unless an authority names one.

mod authority;
mod condition;
mod geometry;
mod lineage;
mod watch;

pub use authority::{Authority, Voucher};
pub use condition::{Condition, Over, Thresholds};
pub use geometry::Geometry;
pub use lineage::{Life, Lineage, Standing, WentBack};
pub use watch::{Answer, Identity, NotNamed, Probe, Question, Ticket, Watch};

#[cfg(test)]
mod simulation;
