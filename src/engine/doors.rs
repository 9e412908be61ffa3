//! How many come, from where, and how often they fail to get in.
//!
//! An IPv6 client has a network of 64 bits to itself, so that counts as one
//! address. Unix sockets are not counted by address.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::config::Limits;
use crate::session::Refused;
use crate::types::{Millis, Moment, SqlState};

/// The counts of all threads.
#[derive(Default)]
pub(super) struct Doors {
    by_address: Mutex<HashMap<IpAddr, Tally>>,
    logging_in: AtomicU32,
}

#[derive(Clone, Copy, Default)]
struct Tally {
    clients: u32,
    failed: u32,
    /// When `failed` began to count.
    since: Moment,
}

/// One connection that is counted, until it is dropped.
pub(super) struct Visit {
    doors: Arc<Doors>,
    address: Option<IpAddr>,
    logging_in: bool,
}

impl Doors {
    /// Counts a connection that has come, before it is known from where.
    pub(super) fn enter(self: &Arc<Self>) -> Visit {
        self.logging_in.fetch_add(1, Ordering::Relaxed);
        Visit { doors: Arc::clone(self), address: None, logging_in: true }
    }

    fn tallies(&self) -> MutexGuard<'_, HashMap<IpAddr, Tally>> {
        // Each step leaves the counts whole.
        self.by_address.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How many are not logged in yet.
    pub(super) fn logging_in(&self) -> u32 {
        self.logging_in.load(Ordering::Relaxed)
    }
}

impl Visit {
    /// Counts the connection by its address.
    ///
    /// # Errors
    /// There are too many from there, or too many of them have failed.
    pub(super) fn admit(
        &mut self,
        address: IpAddr,
        limits: &Limits,
        now: Moment,
    ) -> Result<(), Refused> {
        if limits.clients_per_address_max == 0 && limits.failed_logins_per_address_max == 0 {
            return Ok(());
        }
        let address = counted_as(address);
        let mut all = self.doors.tallies();
        if all.len() >= ADDRESSES_MAX {
            all.retain(|_, tally| !tally.is_over(now));
        }
        let tally = all.entry(address).or_default();
        tally.forget_old(now);
        let most = limits.failed_logins_per_address_max;
        if most > 0 && tally.failed >= most {
            return Err(Refused::new(TOO_MANY, "too many failed logins from this address")
                .hint("wait a minute; the limit is limits.failed_logins_per_address_max"));
        }
        let most = limits.clients_per_address_max;
        if most > 0 && tally.clients >= most {
            let message = format!("too many clients from this address: {most} are connected");
            return Err(
                Refused::new(TOO_MANY, message).hint("the limit is limits.clients_per_address_max")
            );
        }
        tally.clients += 1;
        self.address = Some(address);
        Ok(())
    }

    /// The client is logged in.
    pub(super) fn logged_in(&mut self) {
        if std::mem::take(&mut self.logging_in) {
            self.doors.logging_in.fetch_sub(1, Ordering::Relaxed);
        }
    }

    /// The client has given a wrong password or name.
    pub(super) fn failed(&self, now: Moment) {
        let mut all = self.doors.tallies();
        if let Some(tally) = self.address.and_then(|address| all.get_mut(&address)) {
            tally.forget_old(now);
            if tally.failed == 0 {
                tally.since = now;
            }
            tally.failed += 1;
        }
    }
}

impl Drop for Visit {
    fn drop(&mut self) {
        self.logged_in();
        let mut all = self.doors.tallies();
        if let Some(address) = self.address
            && let Some(tally) = all.get_mut(&address)
        {
            tally.clients = tally.clients.saturating_sub(1);
            if tally.clients == 0 && tally.failed == 0 {
                all.remove(&address);
            }
        }
    }
}

impl Tally {
    fn forget_old(&mut self, now: Moment) {
        if now >= self.since.after(WINDOW) {
            self.failed = 0;
        }
    }

    fn is_over(&self, now: Moment) -> bool {
        self.clients == 0 && now >= self.since.after(WINDOW)
    }
}

fn counted_as(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V4(address) => address.into(),
        IpAddr::V6(address) => Ipv6Addr::from_bits(address.to_bits() >> 64 << 64).into(),
    }
}

/// `too_many_connections`
const TOO_MANY: SqlState = SqlState::new("53300");
/// How long failed logins count.
const WINDOW: Millis = Millis::new(60_000);
/// From so many addresses on, those with nothing to count are looked for.
const ADDRESSES_MAX: usize = 65_536;

#[cfg(test)]
mod tests {
    use super::*;

    fn limits(clients: u32, failed: u32) -> Limits {
        Limits {
            clients_per_address_max: clients,
            failed_logins_per_address_max: failed,
            ..Limits::default()
        }
    }

    fn at(ms: u64) -> Moment {
        Moment::default().after(Millis::new(ms))
    }

    fn come(doors: &Arc<Doors>, address: &str, limits: &Limits, now: Moment) -> Option<Visit> {
        let mut visit = doors.enter();
        visit.admit(address.parse().unwrap(), limits, now).ok().map(|()| visit)
    }

    #[test]
    fn clients_of_an_address_are_bounded_while_they_are_there() {
        let (doors, limits) = (Arc::<Doors>::default(), limits(2, 0));
        let first = come(&doors, "192.0.2.1", &limits, at(0)).unwrap();
        let _second = come(&doors, "::ffff:192.0.2.1", &limits, at(0)).unwrap();
        assert!(come(&doors, "192.0.2.1", &limits, at(0)).is_none());
        assert!(come(&doors, "192.0.2.2", &limits, at(0)).is_some(), "another address");
        drop(first);
        assert!(come(&doors, "192.0.2.1", &limits, at(0)).is_some());
        let _six = [(); 2].map(|()| come(&doors, "2001:db8::1", &limits, at(0)).unwrap());
        assert!(come(&doors, "2001:db8::2:3", &limits, at(0)).is_none(), "the same network");
        assert!(come(&doors, "2001:db8:0:1::1", &limits, at(0)).is_some());
    }

    #[test]
    fn failed_logins_shut_an_address_out_for_a_minute() {
        let (doors, limits) = (Arc::<Doors>::default(), limits(0, 2));
        for ms in [0, 30_000] {
            come(&doors, "192.0.2.1", &limits, at(ms)).unwrap().failed(at(ms));
        }
        assert!(come(&doors, "192.0.2.1", &limits, at(59_999)).is_none());
        assert!(come(&doors, "192.0.2.2", &limits, at(59_999)).is_some());
        assert!(come(&doors, "192.0.2.1", &limits, at(60_000)).is_some());
    }

    #[test]
    fn nothing_is_kept_of_those_who_have_left() {
        let (doors, limits) = (Arc::<Doors>::default(), limits(1, 1));
        for number in 0..100 {
            drop(come(&doors, &format!("192.0.2.{number}"), &limits, at(0)));
        }
        assert!(doors.tallies().is_empty());
        let mut visit = doors.enter();
        let other = doors.enter();
        assert_eq!(doors.logging_in(), 2);
        visit.logged_in();
        visit.logged_in();
        drop(visit);
        assert_eq!(doors.logging_in(), 1);
        drop(other);
        assert_eq!(doors.logging_in(), 0);
    }
}
