//! Any text: its normal form is stable, its constants lie in it in order, and
//! constants are all that two texts of one normal form differ in. Reading it as
//! statements never panics.
#![no_main]

use keyway::sql::reading;
use keyway::sql::scan::Scanner;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let mut scanner = Scanner::new();
    match scanner.scan(data) {
        Ok(()) => {
            let mut end = 0;
            for literal in scanner.literals().as_slice() {
                let (from, to) = (literal.start as usize, literal.end as usize);
                assert!(end <= from && from < to && to <= data.len(), "constants stand in order");
                end = to;
            }
            let normal = scanner.normal().to_vec();
            scanner.scan(data).expect("a text that was read is read again");
            assert_eq!(scanner.normal(), normal, "buffers leave no trace");
            let words = reading::words(data).expect("a text that was read has words");
            let constants = words.iter().filter(|w| matches!(w, reading::Word::Constant(_)));
            assert_eq!(constants.count(), scanner.literals().len(), "both readers agree");
            _ = reading::read(data);
        }
        Err(error) => {
            assert!(error.position().is_none_or(|at| at <= data.len()), "a fault is in the text");
            _ = (error.to_string(), error.sqlstate());
        }
    }
});
