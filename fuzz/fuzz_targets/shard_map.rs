//! Any text as a shard map: it is refused with places in the text, or it is a
//! map that prints back as itself and gives every key an owner that it has.
#![no_main]

use keyway::shardmap::{Key, KeyType, Map, Scratch};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let Ok(text) = std::str::from_utf8(data) else { return };
    match Map::parse(text, "fuzzed") {
        Err(problems) => {
            assert!(!problems.is_empty(), "a refusal has a reason");
            for problem in problems {
                assert!(problem.line >= 1 && problem.column >= 1);
                assert!(problem.line <= text.lines().count() + 1, "a place in the text");
            }
        }
        Ok(map) => {
            let printed = map.to_toml();
            assert_eq!(Map::parse(&printed, "printed").as_ref(), Ok(&map), "{printed}");
            assert!(map.shard(map.home()).is_some());
            for keyspace in map.keyspaces() {
                for key in ["0", "-1", "9000", "00000000-0000-0000-0000-000000000001"] {
                    let key_type: KeyType = keyspace.key_type();
                    if let Ok(key) = Key::from_text(key_type, key, &mut Scratch::default()) {
                        assert!(map.shard(keyspace.owner(&key)).is_some(), "an owner of the map");
                    }
                }
            }
        }
    }
});
