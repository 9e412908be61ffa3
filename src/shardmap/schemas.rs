//! Which schemas are tenants of a keyspace: names, and beginnings of names.
//!
//! The key is the schema's whole name. That two keyspaces want the same schema,
//! or one that is everybody's, is told here and refused where a map is built.

use std::fmt;

use super::name::{identifier, spelled};

/// The schemas of a keyspace whose tenants have one each; none for a keyspace
/// whose tables have a key column.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Schemas(Box<[Pattern]>);

/// One entry of the list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Pattern {
    /// This schema.
    Name(String),
    /// Every schema whose name begins so.
    Begins(String),
}

impl Schemas {
    pub(crate) fn new(patterns: Vec<Pattern>) -> Self {
        Self(patterns.into())
    }

    /// True if its tables have a key column.
    pub(crate) const fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether the schema is a tenant of it.
    pub(crate) fn holds(&self, schema: &str) -> bool {
        self.0.iter().any(|pattern| pattern.holds(schema))
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &Pattern> {
        self.0.iter()
    }
}

impl Pattern {
    /// Reads `tenant_*` or `acme`, in quotes where SQL needs them.
    ///
    /// # Errors
    /// The reason why it is no pattern.
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        let pattern = match text.strip_suffix('*') {
            Some("" | "\"\"") => {
                return Err("a pattern needs a beginning before the *, as tenant_*".to_owned());
            }
            Some(beginning) => Self::Begins(identifier(beginning)?),
            None => Self::Name(identifier(text)?),
        };
        match EVERYBODYS.iter().find(|schema| pattern.holds(schema)) {
            Some(schema) => {
                Err(format!("{text:?} takes in the schema {schema}, which is no tenant"))
            }
            None => Ok(pattern),
        }
    }

    pub(crate) fn holds(&self, schema: &str) -> bool {
        match self {
            Self::Name(name) => name == schema,
            Self::Begins(beginning) => schema.starts_with(beginning.as_str()),
        }
    }

    /// Whether some schema is held by both.
    pub(crate) fn meets(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Name(name), other) | (other, Self::Name(name)) => other.holds(name),
            (Self::Begins(one), Self::Begins(two)) => one.starts_with(two) || two.starts_with(one),
        }
    }
}

impl fmt::Display for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Name(name) => f.write_str(&spelled(&[name])),
            Self::Begins(beginning) => write!(f, "{}*", spelled(&[beginning])),
        }
    }
}

/// Schemas that belong to no tenant: the server's, the router's, and the one in
/// which everybody's tables are.
const EVERYBODYS: &[&str] =
    &["public", "pg_catalog", "pg_toast", "pg_temp", "information_schema", "keyway"];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_hold_names_and_beginnings() {
        let begins = Pattern::parse("tenant_*").unwrap();
        assert!(begins.holds("tenant_7") && begins.holds("tenant_") && !begins.holds("tenant"));
        let quoted = Pattern::parse("\"Tenant \"*").unwrap();
        assert!(quoted.holds("Tenant 7") && !quoted.holds("tenant 7"));
        assert_eq!(quoted.to_string(), "\"Tenant \"*");
        assert_eq!(Pattern::parse("acme").unwrap(), Pattern::Name("acme".to_owned()));
        for bad in ["*", "\"\"*", "p*", "public", "Acme", "key*", "a b*"] {
            assert!(Pattern::parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn patterns_meet_where_one_schema_is_held_by_both() {
        let meets = |one: &str, two: &str| {
            let (one, two) = (Pattern::parse(one).unwrap(), Pattern::parse(two).unwrap());
            assert_eq!(one.meets(&two), two.meets(&one));
            one.meets(&two)
        };
        assert!(meets("tenant_*", "tenant_eu_*") && meets("tenant_*", "tenant_7"));
        assert!(!meets("tenant_*", "team_*") && !meets("acme", "acme_2") && meets("acme", "acme"));
    }
}
