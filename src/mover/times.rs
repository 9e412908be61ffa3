//! How long a move's steps took, for the operator: the copy, and the wait of
//! the tenant's writes in the last cutover, part by part.
//!
//! Nothing is decided by it. What a runner that has died had measured of a
//! cutover is lost with it.

use std::fmt;

use serde::{Deserialize, Serialize};

/// What took how long.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Times {
    /// From the wish to copy until every table was there and followed.
    #[serde(default)]
    pub copy_us: u64,
    /// The last cutover that came to its end.
    #[serde(default)]
    pub pause: Option<Pause>,
}

/// For how long a cutover has held the tenant's writes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pause {
    /// Until the transactions that were open had ended.
    pub drain_us: u64,
    /// Until the fence was closed, on disk.
    pub fence_us: u64,
    /// Until the new owner had applied the rest.
    pub apply_us: u64,
    /// Until sequences were carried, the map was written and every router had
    /// it.
    pub switch_us: u64,
    /// Until the new owner was open, on disk, and those who were held were let
    /// go.
    pub open_us: u64,
}

/// A part of a cutover's pause.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Part {
    Drain,
    Fence,
    Apply,
    Switch,
    Open,
}

impl Pause {
    /// Before anything has taken any time.
    pub(super) const NONE: Self =
        Self { drain_us: 0, fence_us: 0, apply_us: 0, switch_us: 0, open_us: 0 };

    /// All parts together.
    pub const fn total_us(&self) -> u64 {
        self.drain_us
            .saturating_add(self.fence_us)
            .saturating_add(self.apply_us)
            .saturating_add(self.switch_us)
            .saturating_add(self.open_us)
    }

    pub(super) const fn spend(&mut self, part: Part, took_us: u64) {
        let sum = match part {
            Part::Drain => &mut self.drain_us,
            Part::Fence => &mut self.fence_us,
            Part::Apply => &mut self.apply_us,
            Part::Switch => &mut self.switch_us,
            Part::Open => &mut self.open_us,
        };
        *sum = sum.saturating_add(took_us);
    }
}

impl fmt::Display for Pause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ms = |us: u64| format!("{}.{}", us / 1000, us % 1000 / 100);
        write!(
            f,
            "{} ms: drain {}, fence {}, apply {}, switch {}, open {}",
            ms(self.total_us()),
            ms(self.drain_us),
            ms(self.fence_us),
            ms(self.apply_us),
            ms(self.switch_us),
            ms(self.open_us)
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pause_is_told_with_its_parts() {
        let mut pause = Pause::default();
        let parts = [Part::Drain, Part::Fence, Part::Apply, Part::Switch, Part::Open];
        for (part, took_us) in parts.into_iter().zip([1_000, 2_250, 30, 4_999, 0]) {
            pause.spend(part, took_us);
        }
        assert_eq!(
            pause.to_string(),
            "8.2 ms: drain 1.0, fence 2.2, apply 0.0, switch 4.9, open 0.0"
        );
    }
}
