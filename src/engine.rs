//! The data plane: one thread with a runtime of its own that drives sessions,
//! backends and pools.
//!
//! It decides nothing that a machine below could decide: it reads, lets the
//! machines say what comes next, and writes. One task per client does so on
//! the client's socket and on those of the backends which the client holds, so
//! that a query costs two reads and two writes and no other wake-up.
//!
//! `docs/adr/0002-one-task-per-client.md` has the measurements behind it.

mod ask;
mod authenticate;
mod cancel;
mod channels;
mod cleanup;
mod client;
mod conn;
mod connect;
pub mod console;
mod console_session;
mod crew;
mod doors;
mod driver;
mod flow;
mod fresh;
mod handle;
mod hold;
mod lease;
mod listen;
mod loads;
mod login;
mod logins;
mod lookups;
mod marks;
mod moves;
mod operate;
mod params;
mod parked;
mod participants;
mod pools;
mod predecessors;
mod raw;
mod reads;
mod report;
mod scatter;
mod share;
pub mod snapshot;
mod sockets;
mod spare;
mod strikes;
mod thread;

pub use crew::THREADS_MAX;
pub use handle::{Handle, NotObeyed, start};
pub use lease::{Lease, Precision};
pub use logins::{Access, BackendLogin, DatabaseOptions, EngineOptions, User, Users};
pub use lookups::{Found, LookupFailed, LookupOptions, LookupRequest, Validity};
pub use marks::{Marks, Orphan};
pub use moves::{Blocker, Drained};
pub use operate::Operation;
pub use predecessors::Predecessors;
pub use sockets::{Inherited, Socket};
