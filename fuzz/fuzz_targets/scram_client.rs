//! A backend that says anything while the router logs in there: it gets no
//! password in the clear, and never more work than the policy allows.
//!
//! The input is a list of Authentication bodies, each after two bytes of
//! length; `NONCE` in one stands for the router's nonce.
#![no_main]

use keyway::auth::{Cleartext, ClientExchange, ClientPolicy, ClientStep, Credentials, Nonce};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let credentials = Credentials { user: b"alice".to_vec(), password: Some(PASSWORD.to_vec()) };
    let policy = ClientPolicy { cleartext: Cleartext::Refuse, iterations_max: ITERATIONS_MAX };
    let mut exchange = ClientExchange::new(credentials, policy, Nonce::new([7; 18]));
    let (mut rest, mut nonce) = (data, Vec::new());
    while let Some((message, tail)) = message(rest) {
        rest = tail;
        let mut step = exchange.on_message(&with_nonce(message, &nonce));
        if let ClientStep::Derive(request) = step {
            assert!(request.iterations() <= ITERATIONS_MAX, "no more work than allowed");
            step = exchange.on_derived(&request.derive());
        }
        match step {
            ClientStep::Send(bytes) => {
                assert!(
                    !bytes.windows(PASSWORD.len()).any(|part| part == PASSWORD),
                    "the password never leaves"
                );
                if let Some(at) = bytes.windows(2).position(|pair| pair == b"r=") {
                    nonce = bytes[at + 2..].to_vec();
                }
            }
            ClientStep::Wait | ClientStep::Done => {}
            ClientStep::Refuse(error) => {
                _ = (error.to_string(), error.hint());
                return;
            }
            ClientStep::Derive(_) => panic!("one derivation in a login"),
        }
    }
});

fn message(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let (length, rest) = bytes.split_first_chunk::<2>()?;
    let length = usize::from(u16::from_le_bytes(*length)).min(rest.len());
    Some(rest.split_at(length))
}

fn with_nonce(message: &[u8], nonce: &[u8]) -> Vec<u8> {
    let Some(at) = message.windows(5).position(|word| word == b"NONCE") else {
        return message.to_vec();
    };
    [&message[..at], nonce, &message[at + 5..]].concat()
}

const PASSWORD: &[u8] = b"s3cret-that-stays";
const ITERATIONS_MAX: u32 = 64;
