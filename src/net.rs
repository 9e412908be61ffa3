//! Sockets and what stands around them: the clock and TLS.
//!
//! It does not know what the bytes mean.

pub mod certificate;
pub mod clock;
pub mod stream;
pub mod tls;
