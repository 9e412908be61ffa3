//! Tells the service manager what the router does, as sd_notify(3) describes:
//! one datagram to the socket that NOTIFY_SOCKET names. Without that variable
//! nothing is said. Knows nothing of what it reports.

use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::time::Duration;

use super::secrets::Environment;

/// The manager that started the router, if one wants to hear of it.
#[derive(Clone, Debug, Default)]
pub(super) struct Manager {
    address: Option<String>,
    watchdog: Option<Duration>,
}

impl Manager {
    /// The manager that the environment names.
    pub(super) fn of(environment: &Environment) -> Self {
        let number = |name| environment.variable(name)?.parse::<u64>().ok();
        let ours = number("WATCHDOG_PID").is_none_or(|pid| pid == u64::from(std::process::id()));
        Self {
            address: environment.variable("NOTIFY_SOCKET").map(str::to_owned),
            watchdog: number("WATCHDOG_USEC").filter(|_| ours).map(Duration::from_micros),
        }
    }

    /// How often it must hear that the router lives; half of what it waits.
    pub(super) fn heartbeat(&self) -> Option<Duration> {
        self.watchdog.map(|longest| longest / 2).filter(|pause| !pause.is_zero())
    }

    /// Clients are let in.
    pub(super) fn ready(&self) {
        self.tell("READY=1\nSTATUS=serving");
    }

    /// No new clients; the open ones are served until they leave.
    pub(super) fn retired(&self) {
        self.tell("STATUS=another router accepts; serving the clients that are left");
    }

    /// It ends.
    pub(super) fn stopping(&self) {
        self.tell("STOPPING=1\nSTATUS=draining");
    }

    /// It lives.
    pub(super) fn alive(&self) {
        self.tell("WATCHDOG=1");
    }

    fn tell(&self, words: &str) {
        let Some(address) = &self.address else { return };
        let sent = place(address)
            .and_then(|to| UnixDatagram::unbound()?.send_to_addr(words.as_bytes(), &to));
        if let Err(error) = sent {
            tracing::debug!(%error, "the service manager does not listen");
        }
    }
}

/// A path, or with `@` before it a name that only Linux has.
fn place(address: &str) -> std::io::Result<SocketAddr> {
    #[cfg(target_os = "linux")]
    if let Some(name) = address.strip_prefix('@') {
        return <SocketAddr as std::os::linux::net::SocketAddrExt>::from_abstract_name(
            name.as_bytes(),
        );
    }
    SocketAddr::from_pathname(address)
}
