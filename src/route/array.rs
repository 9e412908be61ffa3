//! The elements of an array that a key is compared with: `= ANY ('{1,2}')` or
//! `= ANY ($1)`.
//!
//! Only arrays of one dimension are read, in the spellings that every version
//! of the server reads alike; anything else is refused.
//!
//! Source: PostgreSQL manual, "Array Input and Output Syntax"; the binary form
//! as the server sends it.

use crate::shardmap::Key;
use crate::types::{Format, Oid};

use super::error::RouteError;
use super::locate::{self, UNKNOWN, Values};
use super::template::{CastTo, KeyPlace, KeySource, Param, Role, Shared};

/// Runs `then` on each element's key. NULL equals none, and is no row's key; an
/// array that is NULL makes no rows.
///
/// # Errors
/// The array can't be read, or an element is no key.
pub(super) fn each(
    source: &KeySource,
    values: Values<'_>,
    then: &mut dyn FnMut(Key<'_>),
) -> Result<(), RouteError> {
    match source.place {
        KeyPlace::Null => no_array(source),
        KeyPlace::Literal(index) => {
            let literal = values.literals.get(index as usize).filter(|one| one.kind.is_string());
            let text = literal
                .and_then(|literal| literal.value(values.text))
                .ok_or(RouteError::BadLiteral { what: "this constant" })?;
            each_in_text(&text, &mut |element| match element {
                Some(element) => locate::checked(source, element, then),
                None => no_element(source),
            })
        }
        KeyPlace::Param { index, shared } => {
            let number = u32::from(index) + 1;
            let param = values
                .params
                .and_then(|params| params.get(usize::from(index)))
                .ok_or(RouteError::MissingParam { number })?;
            each_in_param(source, param, shared, number, then)
        }
    }
}

fn each_in_param(
    source: &KeySource,
    param: Param<'_>,
    shared: Shared,
    number: u32,
    then: &mut dyn FnMut(Key<'_>),
) -> Result<(), RouteError> {
    let Some(bytes) = param.value else { return no_array(source) };
    let inferred = [Oid::new(0), UNKNOWN].contains(&param.oid);
    if inferred && shared == Shared::Elsewhere {
        return Err(RouteError::AmbiguousParam { number, oid: param.oid });
    }
    let element = match (element_of(param.oid), source.cast) {
        (Some(element), _) => element,
        (None, Some(CastTo(cast))) if inferred => locate::oid_of(cast),
        (None, _) if inferred => Oid::new(0),
        (None, _) => return Err(RouteError::AmbiguousParam { number, oid: param.oid }),
    };
    // A cast to integers rounds numerics.
    if !inferred && source.cast.is_some_and(|CastTo(cast)| element != locate::oid_of(cast)) {
        return Err(RouteError::AmbiguousParam { number, oid: param.oid });
    }
    match param.format {
        Format::Text => {
            let text = std::str::from_utf8(bytes)
                .map_err(|_| RouteError::BadLiteral { what: "an array that is not UTF-8" })?;
            each_in_text(text, &mut |one| match one {
                Some(one) => {
                    locate::from_bytes(source, Format::Text, element, one.as_bytes(), then)
                }
                None => no_element(source),
            })
        }
        Format::Binary => each_in_binary(bytes, &mut |oid, one| {
            // The array's own element type tells what the bytes are.
            if ![Oid::new(0), oid].contains(&element) {
                return Err(BAD_ARRAY);
            }
            match one {
                Some(one) => locate::from_bytes(source, Format::Binary, oid, one, then),
                None => no_element(source),
            }
        }),
    }
}

/// NULL in the place of an array.
const fn no_array(source: &KeySource) -> Result<(), RouteError> {
    match source.role {
        Role::Filter => Err(RouteError::NullKey),
        Role::Row => Ok(()),
    }
}

/// NULL among the elements.
const fn no_element(source: &KeySource) -> Result<(), RouteError> {
    match source.role {
        Role::Filter => Ok(()),
        Role::Row => Err(RouteError::NullKey),
    }
}

/// The elements of `{…}`.
fn each_in_text(
    text: &str,
    then: &mut dyn FnMut(Option<&str>) -> Result<(), RouteError>,
) -> Result<(), RouteError> {
    let inside = text.trim_matches(is_blank);
    let inside =
        inside.strip_prefix('{').and_then(|rest| rest.strip_suffix('}')).ok_or(BAD_ARRAY)?;
    let mut rest = inside.trim_matches(is_blank);
    if rest.is_empty() {
        return Ok(());
    }
    let mut unescaped = String::new();
    loop {
        rest = rest.trim_start_matches(is_blank);
        if let Some(quoted) = rest.strip_prefix('"') {
            unescaped.clear();
            let mut chars = quoted.char_indices();
            let end = loop {
                match chars.next().ok_or(BAD_ARRAY)? {
                    (at, '"') => break at + 1,
                    (_, '\\') => unescaped.push(chars.next().ok_or(BAD_ARRAY)?.1),
                    (_, other) => unescaped.push(other),
                }
            };
            then(Some(&unescaped))?;
            rest = quoted.get(end..).ok_or(BAD_ARRAY)?.trim_start_matches(is_blank);
        } else {
            let end = rest.find(',').unwrap_or(rest.len());
            let element = rest.get(..end).unwrap_or_default().trim_end_matches(is_blank);
            // Quotes, escapes and nested arrays inside a bare element are left
            // to the server.
            if element.is_empty() || element.contains(['"', '\\', '{', '}']) {
                return Err(BAD_ARRAY);
            }
            let null = element.eq_ignore_ascii_case("null");
            then((!null).then_some(element))?;
            rest = rest.get(end..).unwrap_or_default();
        }
        match rest.strip_prefix(',') {
            Some(more) => rest = more,
            None if rest.is_empty() => return Ok(()),
            None => return Err(BAD_ARRAY),
        }
    }
}

type EachTyped<'f> = dyn FnMut(Oid, Option<&[u8]>) -> Result<(), RouteError> + 'f;

/// The elements of an array's binary form, with their type.
fn each_in_binary(bytes: &[u8], then: &mut EachTyped<'_>) -> Result<(), RouteError> {
    let mut rest = bytes;
    let dimensions = word(&mut rest)?;
    let _flags = word(&mut rest)?;
    let oid = Oid::new(word(&mut rest)?);
    if dimensions == 0 && rest.is_empty() {
        return Ok(());
    }
    if dimensions != 1 {
        return Err(BAD_ARRAY);
    }
    let count = word(&mut rest)?;
    let _lower = word(&mut rest)?;
    for _ in 0..count {
        let len = word(&mut rest)?;
        if len == u32::MAX {
            then(oid, None)?;
            continue;
        }
        let len = usize::try_from(len).map_err(|_| BAD_ARRAY)?;
        let (element, after) = rest.split_at_checked(len).ok_or(BAD_ARRAY)?;
        then(oid, Some(element))?;
        rest = after;
    }
    if rest.is_empty() { Ok(()) } else { Err(BAD_ARRAY) }
}

fn word(rest: &mut &[u8]) -> Result<u32, RouteError> {
    let (head, after) = rest.split_first_chunk::<4>().ok_or(BAD_ARRAY)?;
    *rest = after;
    Ok(u32::from_be_bytes(*head))
}

/// The element type of the built-in array type `array`.
const fn element_of(array: Oid) -> Option<Oid> {
    let element = match array.number() {
        1005 => 21,
        1007 => 23,
        1016 => 20,
        1009 => 25,
        1015 => 1043,
        2951 => 2950,
        1231 => 1700,
        1014 => 1042,
        1182 => 1082,
        1185 => 1184,
        1001 => 17,
        _ => return None,
    };
    Some(Oid::new(element))
}

/// Blanks that the server skips between elements.
const fn is_blank(c: char) -> bool {
    matches!(c, ' ' | '\t' | '\n' | '\x0B' | '\x0C' | '\r')
}

const BAD_ARRAY: RouteError = RouteError::BadLiteral { what: "an array in this form" };

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(text: &str, expected: Option<&[&str]>) {
        let mut found = Vec::new();
        let read = each_in_text(text, &mut |one| {
            // The word NULL without quotes is none.
            found.push(one.map_or("(null)".to_owned(), str::to_owned));
            Ok(())
        });
        let found: Vec<&str> = found.iter().map(String::as_str).collect();
        assert_eq!(read.ok().map(|()| &*found), expected, "{text}");
    }

    #[test]
    fn array_texts_hold_the_elements_that_the_server_reads() {
        check("{}", Some(&[]));
        check(" { } ", Some(&[]));
        check("{1,2}", Some(&["1", "2"]));
        check("{ 1 , NULL, null ,2 }", Some(&["1", "(null)", "(null)", "2"]));
        check(r#"{"a b","c\"d","\\","NULL",""}"#, Some(&["a b", "c\"d", "\\", "NULL", ""]));
        check("{a b, c}", Some(&["a b", "c"]));
        for text in
            ["", "1", "{1", "{1,}", "{,1}", "{{1}}", "[1:1]={1}", r"{a\b}", "{a\"b\"}", "{\"a\"b}"]
        {
            check(text, None);
        }
    }
}
