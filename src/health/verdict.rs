//! Whether a node is up, with hysteresis: one lost answer takes nothing away.

use crate::cluster::Health;

/// How many answers in a row change the verdict.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Thresholds {
    /// Failures until an up node counts as down; at least 1.
    pub down_after: u32,
    /// Successes until a down node counts as up; at least 1.
    pub up_after: u32,
}

impl Default for Thresholds {
    fn default() -> Self {
        Self { down_after: 3, up_after: 2 }
    }
}

/// One node's verdict and the answers that argue against it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Verdict {
    health: Health,
    against: u32,
}

impl Verdict {
    /// Nothing known.
    pub const UNKNOWN: Self = Self { health: Health::Unknown, against: 0 };

    /// The present verdict.
    pub const fn health(self) -> Health {
        self.health
    }

    /// After an answer. The first ever is enough; a down node needs several.
    #[must_use]
    pub const fn after_success(self, thresholds: Thresholds) -> Self {
        match self.health {
            Health::Unknown | Health::Up => Self { health: Health::Up, against: 0 },
            Health::Down => self.argue(Health::Up, thresholds.up_after),
        }
    }

    /// After a missing, late or broken answer.
    #[must_use]
    pub const fn after_failure(self, thresholds: Thresholds) -> Self {
        match self.health {
            Health::Unknown | Health::Up => self.argue(Health::Down, thresholds.down_after),
            Health::Down => Self { health: Health::Down, against: 0 },
        }
    }

    const fn argue(self, other: Health, needed: u32) -> Self {
        let against = self.against.saturating_add(1);
        if against >= needed {
            Self { health: other, against: 0 }
        } else {
            Self { health: self.health, against }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Runs `answers` (`+` success, `-` failure) and writes the verdicts.
    fn check(answers: &str, expected: &str) {
        let thresholds = Thresholds { down_after: 3, up_after: 2 };
        let mut verdict = Verdict::UNKNOWN;
        let mut seen = String::new();
        for answer in answers.chars() {
            verdict = match answer {
                '+' => verdict.after_success(thresholds),
                _ => verdict.after_failure(thresholds),
            };
            seen.push(match verdict.health() {
                Health::Unknown => '?',
                Health::Up => 'U',
                Health::Down => 'D',
            });
        }
        assert_eq!(seen, expected, "{answers}");
    }

    #[test]
    fn the_first_answer_brings_a_node_up() {
        check("+", "U");
        check("-+", "?U");
    }

    #[test]
    fn three_failures_in_a_row_take_it_down() {
        check("+---", "UUUD");
        check("---", "??D");
        check("+--+--+", "UUUUUUU");
    }

    #[test]
    fn two_successes_in_a_row_bring_it_back() {
        check("+---++", "UUUDDU");
        check("+---+-+-++", "UUUDDDDDDU");
    }
}
