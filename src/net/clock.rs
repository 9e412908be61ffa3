//! The process's clock. The only file that reads one.
//!
//! Moments of different threads are compared (a sample's with a connection's),
//! so all of them count from the same instant.

use std::sync::LazyLock;
use std::time::{Duration, Instant};

use crate::types::{Millis, Moment};

/// Now, in milliseconds since the process first asked.
pub fn now() -> Moment {
    let elapsed = START.elapsed().as_millis();
    Moment::from_ms(u64::try_from(elapsed).unwrap_or(u64::MAX))
}

/// Microseconds on the same clock, for latencies.
pub fn now_us() -> u64 {
    u64::try_from(START.elapsed().as_micros()).unwrap_or(u64::MAX)
}

/// The same length as the standard library's type.
pub const fn duration(length: Millis) -> Duration {
    Duration::from_millis(length.count())
}

/// What all moments count from; set once and never changed.
#[allow(clippy::disallowed_methods, reason = "this is the one file that reads the clock")]
static START: LazyLock<Instant> = LazyLock::new(Instant::now);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn time_does_not_go_back_between_threads() {
        let earlier = now();
        let other = std::thread::spawn(now).join().unwrap();
        assert!(earlier <= other && other <= now());
    }
}
