//! Which node gets a shard's writes, from what the nodes say of themselves and
//! what an authority says of them.
//!
//! A node alone that shows itself as the primary is it, unless the authority
//! denies that. Of several only the one that the authority names is; without a
//! name none is, and neither age nor timeline decides. Silence names nobody.

use crate::cluster::Writer;
use crate::types::NodeId;

/// Who says which of two primaries is the right one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Authority {
    /// Nobody: writes stop.
    #[default]
    Nobody,
    /// The shard map.
    Map,
    /// Each node's Patroni.
    Patroni,
    /// An operator, on the console.
    Console,
}

/// What a node's Patroni says of it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Voucher {
    /// Nothing, or not since it became a primary.
    #[default]
    Silent,
    /// That it is the leader.
    Confirmed,
    /// That it is not.
    Denied,
}

/// A node that says that it is its shard's primary.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Claim {
    pub(super) node: NodeId,
    pub(super) voucher: Voucher,
}

/// Where the writes of a shard go whose nodes make these claims; `None` if
/// there is no claim. `named` is who the map or an operator names.
pub(super) fn settle(claims: &[Claim], named: Option<NodeId>) -> Option<Writer> {
    let mut standing = claims.iter().filter(|claim| claim.voucher != Voucher::Denied);
    match (standing.next(), standing.next()) {
        (None, _) if claims.is_empty() => None,
        (None, _) => Some(Writer::Unconfirmed),
        (Some(only), None) => Some(Writer::Node(only.node)),
        (Some(_), Some(_)) => {
            let mut confirmed = claims
                .iter()
                .filter(|claim| claim.voucher == Voucher::Confirmed || Some(claim.node) == named);
            Some(match (confirmed.next(), confirmed.next()) {
                (Some(one), None) => Writer::Node(one.node),
                (None, _) | (Some(_), Some(_)) => Writer::Several,
            })
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Nodes by number and what their Patroni says: `?`, `+`, `-`.
    fn check(claims: &[(u16, char)], named: Option<u16>, expected: Option<Writer>) {
        let list: Vec<Claim> = claims
            .iter()
            .map(|(node, said)| Claim {
                node: NodeId::new(*node),
                voucher: match said {
                    '+' => Voucher::Confirmed,
                    '-' => Voucher::Denied,
                    _ => Voucher::Silent,
                },
            })
            .collect();
        assert_eq!(settle(&list, named.map(NodeId::new)), expected, "{claims:?} {named:?}");
    }

    const fn to(node: u16) -> Option<Writer> {
        Some(Writer::Node(NodeId::new(node)))
    }

    #[test]
    fn a_primary_alone_gets_the_writes_unless_it_is_denied() {
        check(&[], None, None);
        check(&[], Some(1), None);
        check(&[(1, '?')], None, to(1));
        check(&[(1, '+')], None, to(1));
        check(&[(1, '-')], None, Some(Writer::Unconfirmed));
        check(&[(1, '?')], Some(2), to(1));
    }

    #[test]
    fn of_several_only_the_named_one_does() {
        check(&[(1, '?'), (2, '?')], None, Some(Writer::Several));
        check(&[(1, '?'), (2, '?')], Some(2), to(2));
        check(&[(1, '?'), (2, '?')], Some(3), Some(Writer::Several));
        check(&[(1, '?'), (2, '+')], None, to(2));
        check(&[(1, '-'), (2, '?')], None, to(2));
        check(&[(1, '-'), (2, '?'), (3, '?')], None, Some(Writer::Several));
        check(&[(1, '+'), (2, '+')], None, Some(Writer::Several));
        check(&[(1, '-'), (2, '-')], None, Some(Writer::Unconfirmed));
    }
}
