//! A stream of frames as a backend sends it, cut into messages and read.
#![no_main]

use keyway::protocol::backend::{
    Authentication, BackendKeyData, CommandComplete, CopyResponse, DataRow, ErrorFields,
    NegotiateProtocolVersion, Notification, ParameterDescription, ParameterStatus, RowDescription,
    TxStatus,
};
use keyway::protocol::{encode, frame, tag};
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
        tag::backend::READY_FOR_QUERY => _ = TxStatus::decode(body),
        tag::backend::ERROR_RESPONSE | tag::backend::NOTICE_RESPONSE => {
            if let Ok(fields) = ErrorFields::decode(body) {
                _ = (fields.iter().count(), fields.code(), fields.message(), fields.severity());
            }
        }
        tag::backend::COMMAND_COMPLETE => _ = CommandComplete::decode(body).map(|tag| tag.0),
        tag::backend::PARAMETER_STATUS => _ = ParameterStatus::decode(body),
        tag::backend::BACKEND_KEY_DATA => _ = BackendKeyData::decode(body),
        tag::backend::AUTHENTICATION => {
            if let Ok(Authentication::Sasl { mechanisms }) = Authentication::decode(body) {
                _ = (mechanisms.iter().count(), mechanisms.offers("SCRAM-SHA-256"));
            }
        }
        tag::backend::ROW_DESCRIPTION => {
            if let Ok(row) = RowDescription::decode(body) {
                assert_eq!(row.iter().count(), row.count());
            }
        }
        tag::backend::DATA_ROW => row(body),
        tag::backend::PARAMETER_DESCRIPTION => {
            _ = ParameterDescription::decode(body).map(|types| types.iter().count());
        }
        tag::backend::NOTIFICATION_RESPONSE => _ = Notification::decode(body),
        tag::backend::NEGOTIATE_PROTOCOL_VERSION => {
            _ = NegotiateProtocolVersion::decode(body).map(|found| found.options().count());
        }
        _ => _ = CopyResponse::decode(body),
    }
}

fn row(body: &[u8]) {
    let Ok(row) = DataRow::decode(body) else { return };
    assert_eq!(row.iter().count(), row.count());
    let mut out = Vec::new();
    encode::data_row(&mut out, row.iter()).expect("a row that came fits");
    let again = frame::decode(&out).expect("framed").expect("whole");
    assert_eq!(again.body, body, "a row is written as it came");
}
