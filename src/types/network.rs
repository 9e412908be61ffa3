//! A range of addresses.

use core::fmt;
use core::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// The addresses that share their first bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Network {
    first: IpAddr,
    bits: u8,
}

impl Network {
    /// The network written `address/bits`; an address alone is a network of
    /// one. `None` for any other text.
    pub fn parse(text: &str) -> Option<Self> {
        let (address, bits) = match text.split_once('/') {
            Some((address, bits)) => (address, Some(bits)),
            None => (text, None),
        };
        let address: IpAddr = address.parse().ok()?;
        let most = width(address);
        let bits = match bits {
            Some(digits) if digits.bytes().all(|c| c.is_ascii_digit()) => digits.parse().ok()?,
            Some(_) => return None,
            None => most,
        };
        (bits <= most).then_some(Self { first: address, bits })
    }

    /// The network of an address and a mask, as `255.255.0.0`.
    pub fn with_mask(address: IpAddr, mask: IpAddr) -> Option<Self> {
        let (ones, zeros) = match mask {
            IpAddr::V4(mask) => (mask.to_bits().leading_ones(), mask.to_bits().trailing_zeros()),
            IpAddr::V6(mask) => (mask.to_bits().leading_ones(), mask.to_bits().trailing_zeros()),
        };
        let whole = ones + zeros >= u32::from(width(mask)) && width(mask) == width(address);
        Some(Self { first: address, bits: u8::try_from(ones).ok().filter(|_| whole)? })
    }

    /// True if `address` lies in it. An IPv4 address that came over an IPv6
    /// socket is an IPv4 address.
    pub fn contains(&self, address: IpAddr) -> bool {
        match (self.first, address.to_canonical()) {
            (IpAddr::V4(first), IpAddr::V4(address)) => {
                let mask = u32::MAX.checked_shl(32 - u32::from(self.bits)).unwrap_or(0);
                (first.to_bits() ^ address.to_bits()) & mask == 0
            }
            (IpAddr::V6(first), IpAddr::V6(address)) => {
                let mask = u128::MAX.checked_shl(128 - u32::from(self.bits)).unwrap_or(0);
                (first.to_bits() ^ address.to_bits()) & mask == 0
            }
            (IpAddr::V4(_), IpAddr::V6(_)) | (IpAddr::V6(_), IpAddr::V4(_)) => false,
        }
    }
}

impl fmt::Display for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.first, self.bits)
    }
}

fn width(address: IpAddr) -> u8 {
    let bits = match address {
        IpAddr::V4(_) => Ipv4Addr::BITS,
        IpAddr::V6(_) => Ipv6Addr::BITS,
    };
    u8::try_from(bits).unwrap_or(u8::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bits_and_masks_bound_a_network() {
        let address = |text: &str| text.parse::<IpAddr>().unwrap();
        for (network, inside, outside) in [
            ("10.1.0.0/16", "10.1.255.255", "10.2.0.0"),
            ("10.1.2.3", "10.1.2.3", "10.1.2.4"),
            ("0.0.0.0/0", "203.0.113.9", "::1"),
            ("10.1.2.3/31", "::ffff:10.1.2.2", "10.1.2.4"),
            ("2001:db8::/32", "2001:db8:ffff::1", "2001:db9::"),
            ("::/0", "::1", "127.0.0.1"),
        ] {
            let network = Network::parse(network).unwrap();
            assert!(network.contains(address(inside)), "{network} {inside}");
            assert!(!network.contains(address(outside)), "{network} {outside}");
        }
        let masked = Network::with_mask(address("10.1.0.0"), address("255.255.0.0"));
        assert_eq!(masked, Network::parse("10.1.0.0/16"));
        let all = Network::with_mask(address("::"), address("::"));
        assert_eq!(all, Network::parse("::/0"));
        assert_eq!(Network::with_mask(address("10.1.0.0"), address("255.0.255.0")), None);
        assert_eq!(Network::with_mask(address("10.1.0.0"), address("ffff::")), None);
        for other in ["", "10.1.0.0/33", "10.1.0.0/", "10.1.0.0/+8", "host", "10.1/16", "::/129"] {
            assert_eq!(Network::parse(other), None, "{other}");
        }
    }
}
