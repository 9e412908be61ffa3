//! What holds for every message: encoded and decoded it is the same, and no
//! bytes, nor a message cut anywhere, make a decoder panic.

use proptest::collection::vec;
use proptest::prelude::*;

use super::*;
use crate::types::{Format, Oid};

fn text() -> impl Strategy<Value = Vec<u8>> {
    vec(1_u8.., 0..20)
}

fn value() -> impl Strategy<Value = Option<Vec<u8>>> {
    proptest::option::of(vec(any::<u8>(), 0..20))
}

fn body(out: &[u8]) -> &[u8] {
    let frame = frame::decode(out).unwrap().unwrap();
    assert_eq!(frame.bytes.len(), out.len());
    frame.body
}

fn decode_all(bytes: &[u8]) {
    let _ = frame::decode(bytes);
    let _ = startup::decode(bytes).map(|found| match found {
        Some((startup::Packet::Startup(startup), _)) => startup.params().count(),
        _ => 0,
    });
    let _ = frontend::Query::decode(bytes);
    let _ = frontend::Parse::decode(bytes).map(|parse| parse.param_types().count());
    let _ = frontend::Bind::decode(bytes).map(|bind| bind.params().count());
    let _ = frontend::Bind::decode_prefix(bytes).map(|p| p.map(|p| p.param(p.complete())));
    let _ = frontend::Describe::decode(bytes);
    let _ = frontend::Close::decode(bytes);
    let _ = frontend::Execute::decode(bytes);
    let _ = frontend::CopyFail::decode(bytes);
    let _ = frontend::Password::decode(bytes);
    let _ = frontend::SaslInitialResponse::decode(bytes);
    let _ = backend::TxStatus::decode(bytes);
    let _ =
        backend::ErrorFields::decode(bytes).map(|fields| (fields.iter().count(), fields.code()));
    let _ = backend::CommandComplete::decode(bytes);
    let _ = backend::ParameterStatus::decode(bytes);
    let _ = backend::BackendKeyData::decode(bytes);
    let _ = backend::Authentication::decode(bytes);
    let _ = backend::RowDescription::decode(bytes).map(|row| row.iter().count());
    let _ = backend::DataRow::decode(bytes).map(|row| row.iter().count());
    let _ = backend::ParameterDescription::decode(bytes).map(|types| types.iter().count());
    let _ = backend::Notification::decode(bytes);
    let _ = backend::CopyResponse::decode(bytes);
    let _ = backend::NegotiateProtocolVersion::decode(bytes).map(|found| found.options().count());
}

proptest! {
    #[test]
    fn no_bytes_panic(bytes in vec(any::<u8>(), 0..200)) {
        decode_all(&bytes);
    }

    #[test]
    fn bind_round_trips_and_no_cut_of_it_panics(
        portal in text(), statement in text(), values in vec((any::<bool>(), value()), 0..8),
    ) {
        let format = |binary| if binary { Format::Binary } else { Format::Text };
        let sent: Vec<_> = values.iter().map(|(b, v)| (format(*b), v.as_deref())).collect();
        let mut out = Vec::new();
        encode::bind(&mut out, &portal, &statement, &sent, Format::Binary).unwrap();
        let bind = frontend::Bind::decode(body(&out)).unwrap();
        prop_assert_eq!((bind.portal(), bind.statement()), (&portal[..], &statement[..]));
        prop_assert!(bind.params().eq(sent.iter().map(|(_, value)| *value)));
        for (index, (format, value)) in sent.iter().enumerate() {
            prop_assert_eq!(bind.param(index), Some(*value));
            prop_assert_eq!(bind.format_of(index), Some(*format));
        }
        for end in 0..out.len() {
            decode_all(&out[..end]);
            prop_assert_eq!(frontend::Bind::decode(&body(&out)[..end.min(body(&out).len() - 1)]).is_err(), true);
        }
    }

    #[test]
    fn parse_round_trips(name in text(), query in text(), types in vec(any::<u32>(), 0..8)) {
        let types: Vec<_> = types.into_iter().map(Oid::new).collect();
        let mut out = Vec::new();
        encode::parse(&mut out, &name, &query, &types).unwrap();
        let parse = frontend::Parse::decode(body(&out)).unwrap();
        prop_assert_eq!((parse.name, parse.query), (&name[..], &query[..]));
        prop_assert!(parse.param_types().eq(types));
    }

    #[test]
    fn rows_round_trip(values in vec(value(), 0..8)) {
        let mut out = Vec::new();
        encode::data_row(&mut out, values.iter().map(Option::as_deref)).unwrap();
        let row = backend::DataRow::decode(body(&out)).unwrap();
        prop_assert!(row.iter().eq(values.iter().map(Option::as_deref)));
    }

    #[test]
    fn startup_round_trips(user in vec(1_u8.., 1..9), value in text(), minor in any::<u16>()) {
        let mut out = Vec::new();
        encode::startup(&mut out, [(&b"x"[..], &value[..]), (b"user", &user)], minor).unwrap();
        let (packet, consumed) = startup::decode(&out).unwrap().unwrap();
        prop_assert_eq!(consumed, out.len());
        let startup::Packet::Startup(startup) = packet else { panic!("not a startup") };
        prop_assert_eq!((startup.user(), startup.param("x")), (&user[..], Some(&value[..])));
        prop_assert_eq!(startup.version.minor, minor);
    }

    #[test]
    fn cancel_round_trips(pid in any::<u32>(), key in vec(any::<u8>(), 4..=256)) {
        let mut out = Vec::new();
        encode::cancel_request(&mut out, pid, &key).unwrap();
        let expected = startup::Packet::Cancel(startup::Cancel { pid, key: &key });
        prop_assert_eq!(startup::decode(&out), Ok(Some((expected, out.len()))));
        out.clear();
        encode::backend_key_data(&mut out, pid, &key).unwrap();
        let expected = backend::BackendKeyData { pid, key: &key };
        prop_assert_eq!(backend::BackendKeyData::decode(body(&out)), Ok(expected));
    }
}
