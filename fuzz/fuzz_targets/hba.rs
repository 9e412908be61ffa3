//! Files of rules and maps of names: no text stops the reader, and what it
//! reads it reads the same again.
#![no_main]

use keyway::auth::rules::{Caller, NameMaps, Rules};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let lines = text.lines().count();
    match Rules::parse(text, "hba") {
        Ok(rules) => {
            assert!(rules.len() <= lines, "a rule is a line");
            for address in [None, Some([127, 0, 0, 1].into())] {
                let caller = Caller {
                    address,
                    encrypted: false,
                    database: "app",
                    replication: false,
                    user: "alice",
                };
                if let Some(rule) = rules.find(&caller) {
                    assert!((1..=lines).contains(&rule.line), "it stands in the file");
                }
            }
        }
        Err(problems) => assert!(!problems.is_empty(), "a refusal has a reason"),
    }
    if let Ok(names) = NameMaps::parse(text, "ident") {
        assert!(!names.allow(Some("\u{0}none"), "a", "b"), "no map, no user");
    }
});
