//! A client that says anything: it must never be let in without the password.
//!
//! The input is a list of messages, each after two bytes of length. The text
//! `NONCE` in one stands for the router's nonce, so that the fuzzer can get
//! past the check of it.
#![no_main]

use std::sync::Arc;

use keyway::auth::{Account, Login, Nonce, ServerExchange, ServerStep, Verifier};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let Some((kind, mut rest)) = data.split_first() else { return };
    let verifier = Verifier::from_password(PASSWORD, b"0123456789abcdef", 1).expect("valid");
    let account = if kind & 1 == 0 {
        Account::Known(Arc::new(verifier))
    } else {
        Account::unknown(b"seed", b"nobody", 1)
    };
    let login = if kind & 2 == 0 { Login::Scram(account) } else { Login::Cleartext(account) };
    let (mut exchange, mut step) = ServerExchange::start(login, Nonce::new([9; 18]));
    for _ in 0..MESSAGES_MAX {
        step = match step {
            ServerStep::Derive(request) => exchange.on_derived(&request.derive()),
            ServerStep::Send(challenge) => {
                let Some((message, tail)) = message(rest) else { return };
                rest = tail;
                exchange.on_message(&with_nonce(message, &challenge))
            }
            ServerStep::Done(_) => {
                assert!(kind & 2 != 0, "nobody computes a proof by chance");
                assert!(kind & 1 == 0, "an account that does not exist is never let in");
                return;
            }
            ServerStep::Refuse(error) => {
                _ = (error.to_string(), error.hint());
                let after = exchange.on_message(b"more");
                assert!(matches!(after, ServerStep::Refuse(_)), "a refusal is final");
                return;
            }
        };
    }
    panic!("a login ends");
});

fn message(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let (length, rest) = bytes.split_first_chunk::<2>()?;
    let length = usize::from(u16::from_le_bytes(*length)).min(rest.len());
    Some(rest.split_at(length))
}

/// `message` with the nonce of the last challenge where it says `NONCE`.
fn with_nonce(message: &[u8], challenge: &[u8]) -> Vec<u8> {
    let nonce = challenge.split(|byte| *byte == b',').find_map(|part| {
        let at = part.windows(2).position(|pair| pair == b"r=")?;
        part.get(at + 2..)
    });
    let Some(at) = message.windows(5).position(|word| word == b"NONCE") else {
        return message.to_vec();
    };
    [&message[..at], nonce.unwrap_or_default(), &message[at + 5..]].concat()
}

const PASSWORD: &[u8] = b"correct horse battery staple, and a tail that no fuzzer guesses 7f3a";
const MESSAGES_MAX: usize = 8;
