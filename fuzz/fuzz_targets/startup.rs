//! What a client says before it is logged in, and the settings in `options`.
#![no_main]

use keyway::protocol::startup::{Packet, decode, startup_options};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    if let Ok(Some((packet, consumed))) = decode(data) {
        assert!((8..=data.len()).contains(&consumed), "a packet is bytes that came");
        assert_eq!(
            decode(&data[..consumed]),
            Ok(Some((packet, consumed))),
            "what follows a packet does not change it"
        );
        if let Packet::Startup(startup) = packet {
            assert!(!startup.user().is_empty(), "a startup names a user");
            _ = (startup.database(), startup.params().count());
            _ = (startup.unknown_options().count(), startup.needs_negotiation());
        }
    }
    if let Ok(text) = std::str::from_utf8(data) {
        _ = startup_options(text);
    }
});
