//! Rows as COPY … TO STDOUT writes them: text, comma separated values, binary.
//!
//! The values are what the servers sent, in the text or the binary form; only
//! what stands around and between them is made here, as the server makes it.
//! The client's encoding has no byte of ASCII inside another character (the
//! session sees to it).
//!
//! Sources: PostgreSQL manual, "COPY" (File Formats) and "Message Flow" (COPY
//! Operations).

use crate::protocol::encode;
use crate::protocol::tag::backend as tag;
use crate::route::{CopyFormat, CopyOut};
use crate::types::Format;

use super::GatherError;
use super::shape::{close_frame, open_frame};

/// How far the writing is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Written {
    #[default]
    Nothing,
    /// The response, and a header where it is a row of its own.
    Head,
    /// At least one row.
    Rows,
}

/// The format of the values that the servers send.
pub(super) const fn values_format(copy: &CopyOut) -> Format {
    match copy.format {
        CopyFormat::Text | CopyFormat::Csv { .. } => Format::Text,
        CopyFormat::Binary => Format::Binary,
    }
}

/// CopyOutResponse, and the columns' names if they are asked for.
pub(super) fn write_head(copy: &CopyOut, names: &[&[u8]], out: &mut Vec<u8>) {
    let columns = u16::try_from(names.len()).unwrap_or(u16::MAX);
    encode::copy_out_response(out, values_format(copy), columns);
    if copy.header {
        let values = names.iter().map(|name| Some(*name));
        write_line(copy, values, names.len(), Force::Never, out);
    }
}

/// A row of `columns` values. The binary format's signature comes with the
/// first row, where drivers look for it.
pub(super) fn write_row<'a>(
    copy: &CopyOut,
    values: impl Iterator<Item = Option<&'a [u8]>>,
    columns: usize,
    written: Written,
    out: &mut Vec<u8>,
) -> Result<(), GatherError> {
    let CopyFormat::Binary = copy.format else {
        write_line(copy, values, columns, Force::AsAsked, out);
        return Ok(());
    };
    let start = open_frame(tag::COPY_DATA, out);
    if written != Written::Rows {
        out.extend_from_slice(SIGNATURE);
    }
    out.extend_from_slice(&u16::try_from(columns).unwrap_or(u16::MAX).to_be_bytes());
    for value in values {
        let len = match value {
            Some(value) => i32::try_from(value.len()).map_err(|_| GatherError::Malformed)?,
            None => -1,
        };
        out.extend_from_slice(&len.to_be_bytes());
        out.extend_from_slice(value.unwrap_or_default());
    }
    close_frame(out, start);
    Ok(())
}

/// What stands behind the last row, and CopyDone.
pub(super) fn write_end(copy: &CopyOut, written: Written, out: &mut Vec<u8>) {
    if copy.format == CopyFormat::Binary {
        let start = open_frame(tag::COPY_DATA, out);
        if written != Written::Rows {
            out.extend_from_slice(SIGNATURE);
        }
        out.extend_from_slice(&(-1_i16).to_be_bytes());
        close_frame(out, start);
    }
    let start = open_frame(tag::COPY_DONE, out);
    close_frame(out, start);
}

/// Whether FORCE_QUOTE counts: not for the header.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Force {
    Never,
    AsAsked,
}

fn write_line<'a>(
    copy: &CopyOut,
    values: impl Iterator<Item = Option<&'a [u8]>>,
    columns: usize,
    forced: Force,
    out: &mut Vec<u8>,
) {
    let start = open_frame(tag::COPY_DATA, out);
    for (index, value) in values.enumerate() {
        if index > 0 {
            out.push(copy.delimiter);
        }
        match (value, copy.format) {
            (None, _) => out.extend_from_slice(copy.null.as_bytes()),
            (Some(value), CopyFormat::Csv { quote, escape, force }) => {
                let force = force && forced == Force::AsAsked;
                let alone = columns == 1 && value == b"\\.";
                let quoted = force
                    || alone
                    || value == copy.null.as_bytes()
                    || value.iter().any(|byte| {
                        *byte == copy.delimiter || *byte == quote || matches!(byte, b'\n' | b'\r')
                    });
                if quoted {
                    write_quoted(value, quote, escape, out);
                } else {
                    out.extend_from_slice(value);
                }
            }
            (Some(value), CopyFormat::Text | CopyFormat::Binary) => {
                write_escaped(value, copy.delimiter, out);
            }
        }
    }
    out.push(b'\n');
    close_frame(out, start);
}

fn write_quoted(value: &[u8], quote: u8, escape: u8, out: &mut Vec<u8>) {
    out.push(quote);
    for byte in value {
        if *byte == quote || *byte == escape {
            out.push(escape);
        }
        out.push(*byte);
    }
    out.push(quote);
}

fn write_escaped(value: &[u8], delimiter: u8, out: &mut Vec<u8>) {
    for byte in value {
        let letter = match byte {
            0x08 => b'b',
            0x0c => b'f',
            b'\n' => b'n',
            b'\r' => b'r',
            b'\t' => b't',
            0x0b => b'v',
            b'\\' => b'\\',
            byte if *byte == delimiter => delimiter,
            byte => {
                out.push(*byte);
                continue;
            }
        };
        out.extend_from_slice(&[b'\\', letter]);
    }
}

/// The signature, no flags, no extension.
const SIGNATURE: &[u8] = b"PGCOPY\n\xff\r\n\0\0\0\0\0\0\0\0\0";

#[cfg(test)]
mod tests {
    use super::*;

    fn copy(format: CopyFormat, delimiter: u8, null: &str) -> CopyOut {
        CopyOut { format, header: false, delimiter, null: null.into() }
    }

    /// The data of the only message.
    fn row(copy: &CopyOut, values: &[Option<&[u8]>], written: Written) -> Vec<u8> {
        let mut out = Vec::new();
        write_row(copy, values.iter().copied(), values.len(), written, &mut out).unwrap();
        assert_eq!(out[0], b'd');
        out.split_off(5)
    }

    #[test]
    fn text_escapes_what_would_end_a_value() {
        let text = copy(CopyFormat::Text, b'|', "\\N");
        let values: [Option<&[u8]>; 4] = [Some(b"a|b\\"), None, Some(b"\n\t\x01"), Some(b"")];
        assert_eq!(row(&text, &values, Written::Head), b"a\\|b\\\\|\\N|\\n\\t\x01|\n");
    }

    #[test]
    fn csv_quotes_what_must_be_and_a_text_like_null() {
        let csv = |force| copy(CopyFormat::Csv { quote: b'"', escape: b'"', force }, b',', "");
        let values: [Option<&[u8]>; 4] = [Some(b"a,\"b"), None, Some(b""), Some(b"x y")];
        assert_eq!(row(&csv(false), &values, Written::Head), b"\"a,\"\"b\",,\"\",x y\n");
        assert_eq!(row(&csv(true), &values, Written::Head), b"\"a,\"\"b\",,\"\",\"x y\"\n");
        assert_eq!(row(&csv(false), &[Some(b"\\.")], Written::Head), b"\"\\.\"\n");
    }

    #[test]
    fn binary_begins_with_its_signature_and_ends_with_no_row() {
        let binary = copy(CopyFormat::Binary, 0, "");
        let body = [&[0, 2, 0, 0, 0, 1][..], b"x", &[255, 255, 255, 255]].concat();
        let values: [Option<&[u8]>; 2] = [Some(b"x"), None];
        assert_eq!(row(&binary, &values, Written::Head), [SIGNATURE, &body].concat());
        assert_eq!(row(&binary, &values, Written::Rows), body);
        let mut out = Vec::new();
        write_end(&binary, Written::Head, &mut out);
        assert_eq!(out.len(), 5 + SIGNATURE.len() + 2 + 5);
    }

    #[test]
    fn header_is_a_line_of_names() {
        let csv = CopyFormat::Csv { quote: b'"', escape: b'"', force: true };
        let copy = CopyOut { header: true, ..copy(csv, b',', "") };
        let mut out = Vec::new();
        write_head(&copy, &[b"a", b"b,c"], &mut out);
        assert!(out.ends_with(b"a,\"b,c\"\n"), "{out:?}");
    }
}
