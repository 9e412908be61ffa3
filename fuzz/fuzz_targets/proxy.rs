//! The header of a load balancer, from whoever can reach the port.
#![no_main]

use keyway::protocol::proxy::{HEAD_LEN, Head, REST_LEN_MAX};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let Some((head, rest)) = data.split_first_chunk::<HEAD_LEN>() else { return };
    let Some(head) = Head::decode(*head) else { return };
    assert!(head.rest_len <= REST_LEN_MAX, "what is read is bounded");
    let whole = &rest[..rest.len().min(head.rest_len)];
    let origin = head.origin(whole);
    if origin.is_some() {
        let more = [whole, b"more"].concat();
        assert_eq!(head.origin(&more), origin, "extensions change no address");
    }
});
