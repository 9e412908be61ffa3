//! What tests against real Postgres share: clusters, routers, psql.
//!
//! A test crate includes it by `#[path = "../support/mod.rs"] mod support;`.
//! Servers belong to the test process: however it ends, they end too, and their
//! folders are removed.

#![allow(dead_code, unreachable_pub, reason = "every test crate uses another part of it")]
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a panic fails the test")]

pub mod cluster;
pub mod psql;
pub mod router;

use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

/// A folder's name that no other test has.
pub fn scratch_dir() -> std::path::PathBuf {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    let number = COUNT.fetch_add(1, Ordering::Relaxed);
    let dir = std::env::temp_dir().join(format!("keyway-test-{}-{number}", std::process::id()));
    std::fs::create_dir_all(&dir).unwrap();
    dir
}

/// A first port to try that tests of other processes are unlikely to try.
pub fn first_port() -> u16 {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let step = NEXT.fetch_add(1, Ordering::Relaxed);
    u16::try_from(20_000 + (std::process::id() * 37 + step * 16) % 10_000).unwrap()
}

/// A TCP port that was free a moment ago.
pub fn free_port() -> u16 {
    std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

/// Waits until `done`, or fails saying `what` was waited for.
pub fn wait_for(what: &str, mut done: impl FnMut() -> bool) {
    for _ in 0..600 {
        if done() {
            return;
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    panic!("waited 30 s for {what}");
}
