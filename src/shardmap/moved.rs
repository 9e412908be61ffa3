//! A map after a move: the same in everything but the owner of what moved.

use crate::types::{Epoch, ShardId, SlotId};

use super::key::Scratch;
use super::keyspace::Keyspace;
use super::map::Map;

impl Map {
    /// This map with the tenant `key` of `keyspace` on `shard`, as the next
    /// epoch: pinned there, or without a pin if its slot is there anyway.
    ///
    /// `None` if there is no such keyspace, shard, or key.
    pub fn with_tenant_on(&self, keyspace: &str, key: &str, shard: ShardId) -> Option<Self> {
        self.with(keyspace, shard, |found| {
            let mut scratch = Scratch::default();
            let key = found.key_from_text(key, &mut scratch).ok()?;
            if found.slot_owner(found.slot_of(&key)) == Some(shard) {
                found.pins.remove(&key);
            } else {
                found.pins.insert(&key, shard);
            }
            Some(())
        })
    }

    /// This map with the slots `first` to `last` of `keyspace` on `shard`, as
    /// the next epoch. Pinned tenants stay where they are.
    ///
    /// `None` if there is no such keyspace, shard, or slot.
    pub fn with_slots_on(
        &self,
        keyspace: &str,
        (first, last): (SlotId, SlotId),
        shard: ShardId,
    ) -> Option<Self> {
        self.with(keyspace, shard, |found| {
            let index = |slot: SlotId| usize::try_from(slot.number()).ok();
            let owners = found.owners.get_mut(index(first)?..=index(last)?)?;
            owners.fill(shard);
            Some(())
        })
    }

    /// The keyspace called `name`.
    pub fn keyspace_named(&self, name: &str) -> Option<&Keyspace> {
        self.keyspaces.iter().find(|keyspace| keyspace.name == name)
    }

    fn with(
        &self,
        keyspace: &str,
        shard: ShardId,
        change: impl FnOnce(&mut Keyspace) -> Option<()>,
    ) -> Option<Self> {
        self.shard(shard)?;
        let mut map = self.clone();
        change(map.keyspaces.iter_mut().find(|found| found.name == keyspace)?)?;
        // What the operator said of an earlier change does not hold for this.
        map.already_moved = false;
        Some(map.with_epoch(Epoch::new(self.epoch.number().checked_add(1)?)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::shardmap::Change;
    use crate::shardmap::Key;

    fn map() -> Map {
        let text = "epoch = 7\ndatabase = \"app\"\nhome = \"a\"\n\
            [[shard]]\nnumber = 1\nname = \"a\"\nprimary = { host = \"h1\" }\n\
            [[shard]]\nnumber = 2\nname = \"b\"\nprimary = { host = \"h2\" }\n\
            [[keyspace]]\nname = \"k\"\ntype = \"int8\"\nslots = 4\n\
            ranges = { a = [\"0-1\"], b = [\"2-3\"] }\n";
        Map::parse(text, "map").unwrap()
    }

    #[test]
    fn a_tenant_moves_alone_and_back_without_a_trace() {
        let before = map();
        let keyspace = before.keyspace_named("k").unwrap();
        let (from, slot) = keyspace.place(&Key::Int(42));
        let to = ShardId::new(3 - from.number());
        let after = before.with_tenant_on("k", "42", to).unwrap();
        assert_eq!(after.epoch(), Epoch::new(8));
        assert!(
            matches!(&before.diff(&after)[..], [Change::Tenant { tenant, .. }] if tenant == "42")
        );
        assert_eq!(after.keyspaces[0].slot_owner(slot), Some(from));
        let back = after.with_tenant_on("k", "42", from).unwrap();
        assert!(before.same_ownership(&back) && back.keyspaces[0].pins().next().is_none());
    }

    #[test]
    fn slots_move_and_pinned_tenants_stay() {
        let pinned = map().with_tenant_on("k", "42", ShardId::new(1)).unwrap();
        let pinned = pinned.with_tenant_on("k", "42", ShardId::new(2)).unwrap();
        let owner = pinned.keyspaces[0].owner(&Key::Int(42));
        let all = (SlotId::new(0), SlotId::new(3));
        let after = pinned.with_slots_on("k", all, ShardId::new(1)).unwrap();
        assert_eq!(after.keyspaces[0].ranges(), [(all.0, all.1, ShardId::new(1))]);
        let pins = pinned.keyspaces[0].pins().count();
        assert!(pins == 0 || after.keyspaces[0].owner(&Key::Int(42)) == owner);
    }

    #[test]
    fn what_is_not_there_does_not_move() {
        let map = map();
        assert_eq!(map.with_tenant_on("x", "1", ShardId::new(1)), None);
        assert_eq!(map.with_tenant_on("k", "1", ShardId::new(9)), None);
        assert_eq!(map.with_tenant_on("k", "one", ShardId::new(1)), None);
        let past = (SlotId::new(3), SlotId::new(4));
        assert_eq!(map.with_slots_on("k", past, ShardId::new(1)), None);
    }
}
