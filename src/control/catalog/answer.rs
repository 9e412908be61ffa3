//! What the servers answer, read into a catalog. Pure: rows in, facts out.

use std::collections::BTreeMap;

use serde::de::DeserializeOwned;
use xxhash_rust::xxh3::xxh3_64;

use super::CatalogError;
use crate::catalog::{DefaultMode, DefaultPath, Form, Numbers, OwnType, Schema, ShardCatalog};

/// The mark in a probe's rows.
///
/// # Errors
/// A row is no mark, or the schema is beyond the limits.
pub(super) fn mark(rows: &[Vec<Option<&str>>]) -> Result<u64, CatalogError> {
    let mut bytes = Vec::with_capacity(rows.len() * 24);
    for row in rows {
        let number =
            |i: usize| row.get(i).copied().flatten().and_then(|text| text.parse::<i64>().ok());
        let (Some(age), Some(part), Some(count)) = (number(0), number(1), number(2)) else {
            return Err(CatalogError::Answer("a mark".to_owned()));
        };
        // No row, no sum.
        let sum = number(3).unwrap_or(0);
        let limit = LIMITS.iter().find(|(limited, ..)| *limited == part);
        if let Some((_, what, max)) = limit
            && count > *max
        {
            let of = |number: i64| u64::try_from(number).unwrap_or(0);
            return Err(CatalogError::TooLarge { what, count: of(count), max: of(*max) });
        }
        let settled = if HASHED.contains(&part) {
            sum
        } else {
            // Each age is (now - xmin) in 32 bits; so many times now, less
            // their sum, is the sum of the transaction numbers.
            age.wrapping_mul(count).wrapping_sub(sum) & 0xffff_ffff
        };
        for value in [part, count, settled] {
            bytes.extend_from_slice(&value.to_le_bytes());
        }
    }
    if rows.is_empty() {
        return Err(CatalogError::Answer("no mark at all".to_owned()));
    }
    Ok(xxh3_64(&bytes))
}

/// The catalog, and the numbers of its types, in the rows of all other questions.
///
/// # Errors
/// A row says something that is not known here.
pub(super) fn catalog(rows: &[Vec<Option<&str>>]) -> Result<(ShardCatalog, Numbers), CatalogError> {
    let mut schemas: BTreeMap<Box<str>, Schema> = BTreeMap::new();
    let (mut paths, mut modes, mut types) = (Vec::new(), Vec::new(), Vec::new());
    for row in rows {
        let [kind, first, second, facts] = row.as_slice() else {
            return Err(CatalogError::Answer(format!("a row of {} columns", row.len())));
        };
        let (Some(kind), Some(facts)) = (kind, facts) else {
            return Err(CatalogError::Answer("a row without a kind or facts".to_owned()));
        };
        if *kind == "path" {
            paths.push(DefaultPath {
                role: first.map(Into::into),
                of_database: *second == Some("database"),
                path: (*facts).into(),
            });
            continue;
        }
        if *kind == "mode" {
            let Some((name, value)) = facts.split_once('=') else {
                return Err(CatalogError::Answer("a mode without a value".to_owned()));
            };
            modes.push(DefaultMode {
                role: first.map(Into::into),
                of_database: *second == Some("database"),
                name: name.into(),
                value: value.into(),
            });
            continue;
        }
        let Some(schema) = first else {
            return Err(CatalogError::Answer(format!("a {kind} without a schema")));
        };
        let name: Box<str> = second.unwrap_or_default().into();
        if *kind == "type" {
            types.push(own_type(((*schema).into(), name), facts)?);
            continue;
        }
        let schema = schemas.entry((*schema).into()).or_default();
        match *kind {
            "schema" => schema.open = *facts == "true",
            "relation" => {
                schema.relations.insert(name, read(facts)?);
            }
            "function" => schema.functions.entry(name).or_default().push(read(facts)?),
            "enum" => {
                schema.enums.insert(name, read(facts)?);
            }
            other => return Err(CatalogError::Answer(format!("a row of kind {other}"))),
        }
    }
    Ok((ShardCatalog::new(schemas, paths, modes), Numbers::new(&types)))
}

/// A type in the words of [`super::queries::TYPES`].
fn own_type(name: (Box<str>, Box<str>), facts: &str) -> Result<OwnType, CatalogError> {
    let odd = || CatalogError::Answer(format!("a type that is {facts}"));
    let words: Vec<&str> = facts.split(' ').collect();
    let [number, form, of, relation] = words.as_slice() else { return Err(odd()) };
    let read = |word: &str| word.parse::<u32>().map_err(|_| odd());
    let of = read(of)?;
    let form = match *form {
        "a" => Form::Array(of),
        "d" => Form::Domain(of),
        "r" => Form::Range(of),
        "m" => Form::Multirange(of),
        "c" => Form::Record,
        "b" | "e" | "p" => Form::Plain,
        _ => return Err(odd()),
    };
    Ok(OwnType { number: read(number)?, name, form, relation: read(relation)? })
}

fn read<T: DeserializeOwned>(facts: &str) -> Result<T, CatalogError> {
    serde_json::from_str(facts).map_err(|error| CatalogError::Answer(error.to_string()))
}

/// Parts of a mark whose sum is a hash of values, not of ages.
const HASHED: &[i64] = &[1, 11];
/// Most of each part that is read.
const LIMITS: &[(i64, &str, i64)] =
    &[(1, "relations", 100_000), (2, "columns", 2_000_000), (7, "functions", 100_000)];

#[cfg(test)]
mod tests {
    use super::*;

    fn probe(age: i64, rows: &[(i64, i64, i64)]) -> Result<u64, CatalogError> {
        let text: Vec<[String; 4]> = rows
            .iter()
            .map(|(part, count, sum)| [age, *part, *count, *sum].map(|n| n.to_string()))
            .collect();
        let rows: Vec<Vec<Option<&str>>> =
            text.iter().map(|row| row.iter().map(|cell| Some(cell.as_str())).collect()).collect();
        mark(&rows)
    }

    #[test]
    fn a_mark_stays_while_only_transactions_pass() {
        // Two rows made by transactions 100 and 200, seen at 853 and at 953.
        let first = probe(850, &[(2, 2, 753 + 653)]).unwrap();
        let later = probe(950, &[(2, 2, 853 + 753)]).unwrap();
        assert_eq!(first, later);
        let changed = probe(950, &[(2, 2, 853 + 3)]).unwrap();
        assert_ne!(first, changed);
        let dropped = probe(950, &[(2, 1, 853)]).unwrap();
        assert_ne!(first, dropped);
    }

    #[test]
    fn a_mark_survives_the_wrap_of_transaction_numbers() {
        // The age of transaction 3 and of a row made by 100, as 32 bits.
        let at = |now: i64| {
            let wrapped = |age: i64| i64::from(age as u32 as i32);
            probe(wrapped(now - 3), &[(2, 1, wrapped(now - 100))]).unwrap()
        };
        let first = at(1_000);
        assert!([1 << 30, 1 << 31, (1 << 31) + 7, 1 << 32].iter().all(|now| at(*now) == first));
    }

    #[test]
    fn a_schema_beyond_the_limits_is_refused() {
        let error = probe(850, &[(1, 100_001, 7)]).unwrap_err().to_string();
        assert_eq!(error, "100001 relations, more than the limit of 100000");
    }

    #[test]
    fn rows_become_facts() {
        let rows = [
            vec![Some("schema"), Some("public"), None, Some("true")],
            vec![Some("relation"), Some("public"), Some("t"), Some("{\"kind\":\"table\"}")],
            vec![Some("path"), Some("ann"), Some("cluster"), Some("a, public")],
            vec![Some("type"), Some("public"), Some("_t"), Some("16390 a 16389 0")],
        ];
        let (catalog, numbers) = catalog(&rows).unwrap();
        assert_eq!(numbers.len(), 1);
        assert!(catalog.schema("public").unwrap().open);
        assert!(catalog.relation("public", "t").is_some());
        assert_eq!(catalog.search_path("ann"), Some("a, public"));
        assert_eq!(catalog.search_path("bob"), None);
    }

    #[test]
    fn what_is_not_known_is_refused() {
        let row = vec![Some("relation"), Some("public"), Some("t"), Some("{\"kind\":\"blob\"}")];
        assert!(catalog(&[row]).is_err());
        let row = vec![Some("type"), Some("public"), Some("t"), Some("16390 x 0 0")];
        assert!(catalog(&[row]).is_err());
        assert!(catalog(&[vec![Some("gift"), Some("public"), None, Some("x")]]).is_err());
    }
}
