//! The numbers (OIDs) that a database's own types and relations have on one
//! shard, and what they are on another, by their names.
//!
//! An array goes by the name of its element and a multirange by that of its
//! range: their own names are the server's invention. It does not know who asks
//! in which shard's numbers; what a shard has and the other lacks has no
//! counterpart, and is never taken for something else.
//!
//! Source: PostgreSQL manual, "System Catalogs", `pg_type`; hazard 85 of
//! `docs/hazards.md`.

use std::collections::{BTreeMap, HashMap};

use crate::types::Oid;

/// One row of a shard's `pg_type`, of a type that is the database's own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OwnType {
    /// Its number.
    pub number: u32,
    /// Its schema and name.
    pub name: (Box<str>, Box<str>),
    /// What it is made of.
    pub form: Form,
    /// The relation whose rows it is; zero if it is none's.
    pub relation: u32,
}

/// What a value of a type is made of, as far as numbers can stand in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// Nothing that has a number.
    Plain,
    /// Elements of this type.
    Array(u32),
    /// A value of this type.
    Domain(u32),
    /// Bounds of this type.
    Range(u32),
    /// Ranges of this type.
    Multirange(u32),
    /// Columns, each with the number of its type.
    Record,
}

/// The numbers of one shard.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Numbers {
    types: BTreeMap<String, Numbered>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Numbered {
    number: u32,
    form: Form,
    relation: u32,
}

/// From one shard's numbers to another's, and back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Translation {
    /// Sorted by the shard's numbers.
    types: Box<[Entry]>,
    /// (the shard's number of a relation, the other's), sorted.
    relations: Box<[(u32, u32)]>,
    /// (the other's number of a type, the shard's), sorted.
    back: Box<[(u32, u32)]>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Entry {
    number: u32,
    other: Option<u32>,
    form: Form,
}

impl Numbers {
    /// The numbers of these types.
    pub fn new(types: &[OwnType]) -> Self {
        let by_number: HashMap<u32, &OwnType> = types.iter().map(|one| (one.number, one)).collect();
        let named = types.iter().map(|one| {
            let numbered = Numbered { number: one.number, form: one.form, relation: one.relation };
            (name_of(one, &by_number, DEPTH_MAX), numbered)
        });
        Self { types: named.collect() }
    }

    /// How many types it numbers.
    pub fn len(&self) -> usize {
        self.types.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.types.is_empty()
    }
}

/// What a type is called for comparison; a zero byte can be in no name.
fn name_of(one: &OwnType, all: &HashMap<u32, &OwnType>, depth: u8) -> String {
    let (of, mark) = match one.form {
        Form::Array(of) => (of, "\0[]"),
        Form::Multirange(of) => (of, "\0{}"),
        Form::Plain | Form::Domain(_) | Form::Range(_) | Form::Record => (0, ""),
    };
    match (all.get(&of), depth.checked_sub(1)) {
        (Some(inner), Some(depth)) => name_of(inner, all, depth) + mark,
        (None, _) | (_, None) => format!("{}\0{}{mark}", one.name.0, one.name.1),
    }
}

impl Translation {
    /// From `shard`'s numbers to `other`'s; `None` if `shard` has none that mean
    /// something else, or nothing, there.
    pub fn between(shard: &Numbers, other: &Numbers) -> Option<Self> {
        let found = |name: &str, one: &Numbered| {
            other.types.get(name).filter(|there| alike(one.form, there.form)).copied()
        };
        let same = |(name, one): (&String, &Numbered)| {
            found(name, one)
                .is_some_and(|there| there.number == one.number && there.relation == one.relation)
        };
        if shard.types.iter().all(same) {
            return None;
        }
        let (mut types, mut relations, mut back) = (Vec::new(), Vec::new(), Vec::new());
        for (name, one) in &shard.types {
            let there = found(name, one);
            types.push(Entry {
                number: one.number,
                other: there.map(|there| there.number),
                form: one.form,
            });
            if let Some(there) = there {
                back.push((there.number, one.number));
                if one.relation != 0 && there.relation != 0 {
                    relations.push((one.relation, there.relation));
                }
            }
        }
        types.sort_unstable_by_key(|entry| entry.number);
        relations.sort_unstable();
        back.sort_unstable();
        Some(Self { types: types.into(), relations: relations.into(), back: back.into() })
    }

    /// The other's number of the shard's type; `unknown`, which is a type too,
    /// if it has none.
    pub fn type_there(&self, oid: Oid) -> Oid {
        if !oid.is_own() {
            return oid;
        }
        self.entry(oid.number()).and_then(|entry| entry.other).map_or(UNKNOWN, Oid::new)
    }

    /// The other's number of the shard's relation; zero, as of no relation, if
    /// it has none.
    pub fn relation_there(&self, oid: Oid) -> Oid {
        if !oid.is_own() {
            return oid;
        }
        Oid::new(paired(&self.relations, oid.number()).unwrap_or(0))
    }

    /// The shard's number of the other's type.
    pub fn type_here(&self, oid: Oid) -> Option<Oid> {
        if !oid.is_own() {
            return Some(oid);
        }
        paired(&self.back, oid.number()).map(Oid::new)
    }

    /// What values of the shard's type are made of.
    pub fn form(&self, oid: Oid) -> Form {
        match oid.number() {
            RECORD => Form::Record,
            RECORD_ARRAY => Form::Array(RECORD),
            number => self.entry(number).map_or(Form::Plain, |entry| entry.form),
        }
    }

    /// Whether numbers that are the shard's own may stand in the binary form of
    /// the shard's type.
    pub fn is_deep(&self, oid: Oid) -> bool {
        self.is_deep_within(oid.number(), DEPTH_MAX)
    }

    fn is_deep_within(&self, number: u32, depth: u8) -> bool {
        // What nests so deep is looked at.
        let Some(depth) = depth.checked_sub(1) else { return true };
        match self.form(Oid::new(number)) {
            Form::Plain => false,
            Form::Array(of) => Oid::new(of).is_own() || self.is_deep_within(of, depth),
            Form::Domain(of) | Form::Range(of) | Form::Multirange(of) => {
                self.is_deep_within(of, depth)
            }
            Form::Record => true,
        }
    }

    fn entry(&self, number: u32) -> Option<&Entry> {
        let at = self.types.binary_search_by_key(&number, |entry| entry.number).ok()?;
        self.types.get(at)
    }
}

/// Whether both are of one kind.
const fn alike(one: Form, other: Form) -> bool {
    matches!(
        (one, other),
        (Form::Plain, Form::Plain)
            | (Form::Array(_), Form::Array(_))
            | (Form::Domain(_), Form::Domain(_))
            | (Form::Range(_), Form::Range(_))
            | (Form::Multirange(_), Form::Multirange(_))
            | (Form::Record, Form::Record)
    )
}

fn paired(pairs: &[(u32, u32)], first: u32) -> Option<u32> {
    let at = pairs.binary_search_by_key(&first, |pair| pair.0).ok()?;
    pairs.get(at).map(|pair| pair.1)
}

/// `unknown`: what has no type yet; every driver takes it for text.
const UNKNOWN: Oid = Oid::new(705);
const RECORD: u32 = 2249;
const RECORD_ARRAY: u32 = 2287;
/// Deepest nesting of types in types that is followed.
const DEPTH_MAX: u8 = 32;

#[cfg(test)]
mod tests {
    use super::*;

    fn own(number: u32, name: &str, form: Form, relation: u32) -> OwnType {
        OwnType { number, name: ("public".into(), name.into()), form, relation }
    }

    /// A schema whose numbers begin at `first`; arrays' names are the server's.
    fn shard(first: u32) -> Numbers {
        Numbers::new(&[
            own(first, "mood", Form::Plain, 0),
            own(first + 1, &format!("_mood{first}"), Form::Array(first), 0),
            own(first + 2, "t", Form::Record, first + 3),
            own(first + 4, "_t", Form::Array(first + 2), 0),
            own(first + 5, "span", Form::Range(first), 0),
            own(first + 6, &format!("spans{first}"), Form::Multirange(first + 5), 0),
            own(first + 7, "named", Form::Domain(first + 2), 0),
            own(first + 8, "int_row", Form::Array(23), 0),
        ])
    }

    #[test]
    fn what_has_the_same_numbers_needs_no_translation() {
        assert_eq!(Translation::between(&shard(20_000), &shard(20_000)), None);
        assert_eq!(Translation::between(&Numbers::default(), &shard(20_000)), None);
    }

    #[test]
    fn numbers_go_by_names_and_arrays_by_their_elements() {
        let to = Translation::between(&shard(20_000), &shard(30_000)).unwrap();
        for at in [0, 1, 2, 4, 5, 6, 7] {
            let (here, there) = (Oid::new(20_000 + at), Oid::new(30_000 + at));
            assert_eq!(to.type_there(here), there);
            assert_eq!(to.type_here(there), Some(here));
        }
        assert_eq!(to.relation_there(Oid::new(20_003)), Oid::new(30_003));
        for builtin in [0, 23, 1007, 2249] {
            assert_eq!(to.type_there(Oid::new(builtin)), Oid::new(builtin));
            assert_eq!(to.type_here(Oid::new(builtin)), Some(Oid::new(builtin)));
            assert_eq!(to.relation_there(Oid::new(builtin)), Oid::new(builtin));
        }
    }

    #[test]
    fn what_has_no_counterpart_is_nothing_else() {
        let here = Numbers::new(&[
            own(20_000, "mood", Form::Plain, 0),
            own(20_001, "alone", Form::Record, 20_002),
        ]);
        // The same name for another kind of type.
        let there = Numbers::new(&[
            own(20_001, "mood", Form::Plain, 0),
            own(20_003, "alone", Form::Plain, 0),
        ]);
        let to = Translation::between(&here, &there).unwrap();
        assert_eq!(to.type_there(Oid::new(20_001)), UNKNOWN);
        assert_eq!(to.type_there(Oid::new(29_999)), UNKNOWN, "never seen");
        assert_eq!(to.relation_there(Oid::new(20_002)), Oid::new(0));
        assert_eq!(to.type_here(Oid::new(20_003)), None);
        assert_eq!(to.type_here(Oid::new(20_001)), Some(Oid::new(20_000)));
        // A number that only the shard has could be taken for another's.
        assert!(Translation::between(&here, &Numbers::default()).is_some());
    }

    #[test]
    fn only_what_holds_numbers_is_deep() {
        let to = Translation::between(&shard(20_000), &shard(30_000)).unwrap();
        let deep = |number| to.is_deep(Oid::new(number));
        assert!([20_001, 20_002, 20_004, 20_007, 2249, 2287].into_iter().all(deep));
        assert!(![20_000, 20_005, 20_006, 20_008, 23, 1007].into_iter().any(deep));
    }
}
