//! The header in which a load balancer says whose connection it passes on:
//! PROXY protocol, version 2.
//!
//! Only the binary form, and only its addresses: what else a header carries is
//! skipped. Whose headers are believed is decided elsewhere.
//!
//! Source: "The PROXY protocol, Versions 1 & 2", section 2.2.

use core::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// Bytes before the part whose length they give.
pub const HEAD_LEN: usize = 16;
/// The longest rest of a header that is read.
pub const REST_LEN_MAX: usize = 4096;

/// The first bytes of a header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Head {
    local: bool,
    family: u8,
    /// How many bytes follow.
    pub rest_len: usize,
}

/// What a header says of the client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    /// This is its address and port.
    Client(IpAddr, u16),
    /// The balancer speaks for itself, or knows no IP address.
    Balancer,
}

impl Head {
    /// Reads the first bytes; `None` if they begin no header of version 2, or
    /// one that is too long.
    pub fn decode(bytes: [u8; HEAD_LEN]) -> Option<Self> {
        let (signature, rest) = bytes.split_at_checked(SIGNATURE.len())?;
        let &[command, family, high, low] = rest else { return None };
        let rest_len = usize::from(u16::from_be_bytes([high, low]));
        let known = signature == SIGNATURE && matches!(command, LOCAL | PROXY);
        (known && rest_len <= REST_LEN_MAX).then_some(Self {
            local: command == LOCAL,
            family,
            rest_len,
        })
    }

    /// Reads the rest, which is as long as the head says; `None` if it is too
    /// short for the addresses that it should hold.
    pub fn origin(&self, rest: &[u8]) -> Option<Origin> {
        if self.local {
            return Some(Origin::Balancer);
        }
        match self.family {
            TCP_4 => {
                let (address, rest) = rest.split_first_chunk::<4>()?;
                let port = rest.get(4..)?.first_chunk::<2>()?;
                Some(Origin::Client(Ipv4Addr::from(*address).into(), u16::from_be_bytes(*port)))
            }
            TCP_6 => {
                let (address, rest) = rest.split_first_chunk::<16>()?;
                let port = rest.get(16..)?.first_chunk::<2>()?;
                let address = IpAddr::from(Ipv6Addr::from(*address)).to_canonical();
                Some(Origin::Client(address, u16::from_be_bytes(*port)))
            }
            _ => Some(Origin::Balancer),
        }
    }
}

const SIGNATURE: &[u8] = b"\r\n\r\n\0\r\nQUIT\n";
const LOCAL: u8 = 0x20;
const PROXY: u8 = 0x21;
const TCP_4: u8 = 0x11;
const TCP_6: u8 = 0x21;

#[cfg(test)]
mod tests {
    use super::*;

    fn head(command: u8, family: u8, length: u16) -> Option<Head> {
        let bytes = [SIGNATURE, &[command, family], &length.to_be_bytes()].concat();
        Head::decode(bytes.try_into().unwrap())
    }

    #[test]
    fn addresses_are_those_of_the_client() {
        let four = [192, 0, 2, 1, 10, 0, 0, 1, 0x1F, 0x90, 0x15, 0x38];
        let origin = head(0x21, 0x11, 12).unwrap().origin(&four);
        assert_eq!(origin, Some(Origin::Client("192.0.2.1".parse().unwrap(), 8080)));
        // Extensions behind the addresses are skipped.
        let more = [&four[..], b"\x04\x00\x01x"].concat();
        assert_eq!(head(0x21, 0x11, 16).unwrap().origin(&more), origin);
        let client: Ipv6Addr = "2001:db8::7".parse().unwrap();
        let six = [&client.octets()[..], &[0; 16], &[0, 80, 0, 81]].concat();
        let origin = head(0x21, 0x21, 36).unwrap().origin(&six);
        assert_eq!(origin, Some(Origin::Client(client.into(), 80)));
        let mapped: Ipv6Addr = "::ffff:192.0.2.1".parse().unwrap();
        let six = [&mapped.octets()[..], &[0; 16], &[0, 80, 0, 81]].concat();
        let origin = head(0x21, 0x21, 36).unwrap().origin(&six);
        assert_eq!(origin, Some(Origin::Client("192.0.2.1".parse().unwrap(), 80)));
    }

    #[test]
    fn balancer_may_speak_for_itself() {
        assert_eq!(head(0x20, 0x11, 0).unwrap().origin(&[]), Some(Origin::Balancer));
        assert_eq!(head(0x21, 0x00, 0).unwrap().origin(&[]), Some(Origin::Balancer));
        let unix = [0; 216];
        assert_eq!(head(0x21, 0x31, 216).unwrap().origin(&unix), Some(Origin::Balancer));
    }

    #[test]
    fn what_is_no_header_is_none() {
        assert_eq!(head(0x11, 0x11, 12), None, "another version");
        assert_eq!(head(0x22, 0x11, 12), None, "another command");
        assert_eq!(head(0x21, 0x11, 4097), None, "too long");
        assert_eq!(Head::decode(*b"PROXY TCP4 1.2.3"), None, "version 1");
        assert_eq!(head(0x21, 0x11, 11).unwrap().origin(&[0; 9]), None, "too short");
        assert_eq!(head(0x21, 0x21, 35).unwrap().origin(&[0; 33]), None, "too short");
    }
}
