//! A stream of frames as a client sends it, cut into messages and read; a Bind
//! also from every prefix that the router might hold of it.
#![no_main]

use keyway::protocol::frame;
use keyway::protocol::frontend::{
    Bind, Close, CopyFail, Describe, Execute, Parse, Password, Query, SaslInitialResponse,
    SaslResponse,
};
use keyway::protocol::{encode, tag};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let mut rest = data;
    while let Ok(Some(frame)) = frame::decode(rest) {
        assert!(!frame.bytes.is_empty(), "a frame moves the stream on");
        read(frame.tag, frame.body);
        rest = &rest[frame.bytes.len()..];
    }
});

fn read(tag: u8, body: &[u8]) {
    match tag {
        tag::frontend::QUERY => _ = Query::decode(body).map(|query| query.0.len()),
        tag::frontend::PARSE => parse(body),
        tag::frontend::BIND => bind(body),
        tag::frontend::DESCRIBE => _ = Describe::decode(body),
        tag::frontend::CLOSE => _ = Close::decode(body),
        tag::frontend::EXECUTE => _ = Execute::decode(body),
        tag::frontend::COPY_FAIL => _ = CopyFail::decode(body),
        _ => {
            _ = Password::decode(body);
            _ = SaslInitialResponse::decode(body);
            assert_eq!(SaslResponse::decode(body).0, body);
        }
    }
}

fn parse(body: &[u8]) {
    let Ok(parse) = Parse::decode(body) else { return };
    let mut out = Vec::new();
    let renamed = encode::parse_renamed(&mut out, &parse, b"kw_1");
    renamed.expect("a Parse under a short name fits");
    let again = frame::decode(&out).expect("framed").expect("whole");
    let again = Parse::decode(again.body).expect("what we write can be read");
    assert_eq!((again.name, again.query), (&b"kw_1"[..], parse.query));
    assert!(again.param_types().eq(parse.param_types()));
}

fn bind(body: &[u8]) {
    for end in 0..body.len().min(512) {
        if let Ok(Some(prefix)) = Bind::decode_prefix(&body[..end]) {
            for index in 0..=prefix.complete() {
                _ = (prefix.param(index), prefix.format_of(index));
            }
        }
    }
    let Ok(bind) = Bind::decode(body) else { return };
    assert_eq!(bind.params().count(), bind.count());
    for (index, value) in bind.params().enumerate() {
        assert_eq!(bind.param(index), Some(value));
        _ = bind.format_of(index);
    }
    let mut out = Vec::new();
    encode::bind_renamed(&mut out, &bind, b"kw_1").expect("a Bind of a short name fits");
    let again = frame::decode(&out).expect("framed").expect("whole");
    let again = Bind::decode(again.body).expect("what we write can be read");
    assert_eq!((again.portal(), again.statement()), (bind.portal(), &b"kw_1"[..]));
    assert!(again.params().eq(bind.params()));
}
