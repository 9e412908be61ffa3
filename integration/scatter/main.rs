//! Reads over several shards against real servers: what the router answers is
//! what one Postgres with all the rows answers, or it refuses.
//!
//! One cluster of three shards, and on its first server a second database that
//! holds all the rows; the same rows went through the router.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::print_stdout,
    reason = "a test: a panic fails it, and it reports"
)]

#[path = "../support/mod.rs"]
mod support;

mod answers;
mod both;
mod constructs;
mod cursors;
mod generated;
mod orm;
mod protocol;
mod statements;
mod tpch;
mod transactions;
mod wrapped;

use both::Both;

#[test]
fn statements_by_hand_are_answered_as_one_server_answers_them() {
    let both = Both::shared();
    both.run(answers::hand_written(both));
}

#[test]
fn generated_reads_are_equal_or_refused() {
    let both = Both::shared();
    both.run(answers::generated(both));
}

#[test]
fn portals_limits_and_transactions() {
    let both = Both::shared();
    both.run(protocol::all(both));
}

#[test]
fn transactions_with_a_shard_are_joined_by_others() {
    // Its own rows change, so the others don't share it.
    let both = Both::apart();
    both.run(transactions::all(&both));
}

#[test]
fn explain_and_copy_speak_for_all_shards() {
    let both = Both::shared();
    both.run(wrapped::all(both));
}

#[test]
fn cursors_and_portals_give_rows_in_parts() {
    let both = Both::shared();
    both.run(cursors::all(both));
}

#[test]
fn tpch_is_answered_as_one_server_answers_it() {
    let both = Both::shared();
    both.run(tpch::all(both));
}
