//! What a setting is: a path, a kind of value with a unit and limits, a
//! default and a description; and the macro that declares a section of them
//! once, as a struct and as rows of the table.

use toml::de::DeValue;

use crate::types::{Consistency, Millis, Secret};

/// One row of the table of settings.
#[derive(Clone, Copy, Debug)]
pub struct Setting {
    /// Section and name, as `pool.size_max`.
    pub path: &'static str,
    /// What values look like, in words.
    pub form: &'static str,
    /// The default, as one would write it; empty if there is none.
    pub default: fn() -> String,
    /// Least and greatest value, as one would write them.
    pub limits: fn() -> Option<(String, String)>,
    /// The JSON types and words that the schema allows.
    pub schema: fn() -> serde_json::Value,
    /// The description, one or more sentences of Markdown.
    pub doc: &'static [&'static str],
}

/// A number of bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Bytes(usize);

impl Bytes {
    /// `count` bytes.
    pub const fn new(count: usize) -> Self {
        Self(count)
    }

    /// `count` times 1024 bytes.
    pub const fn kib(count: usize) -> Self {
        Self(count * 1024)
    }

    /// `count` times 1024 times 1024 bytes.
    pub const fn mib(count: usize) -> Self {
        Self(count * 1024 * 1024)
    }

    /// The count.
    pub const fn count(self) -> usize {
        self.0
    }
}

/// A URL of plain HTTP, in which `{host}` and `{port}` stand for a node's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UrlTemplate(String);

impl UrlTemplate {
    pub(crate) fn new(text: &str) -> Self {
        Self(text.to_owned())
    }

    /// The URL for the node that listens there.
    pub fn of(&self, host: &str, port: u16) -> String {
        // An IPv6 address has colons of its own.
        let host = if host.contains(':') { format!("[{host}]") } else { host.to_owned() };
        self.0.replace("{host}", &host).replace("{port}", &port.to_string())
    }
}

/// A kind of value that a setting may have.
pub(crate) trait Value: Sized {
    /// What values look like, in words.
    const FORM: &'static str;

    /// The value that `found` spells; `None` if it spells none.
    fn read(found: &DeValue<'_>) -> Option<Self>;

    /// The value as one would write it in the file.
    fn written(&self) -> String;

    /// JSON Schema of the value's spellings.
    fn schema() -> serde_json::Value;
}

impl Value for u32 {
    const FORM: &'static str = "a number";

    fn read(found: &DeValue<'_>) -> Option<Self> {
        integer(found)?.try_into().ok()
    }

    fn written(&self) -> String {
        self.to_string()
    }

    fn schema() -> serde_json::Value {
        serde_json::json!({ "type": "integer", "minimum": 0 })
    }
}

impl Value for Bytes {
    const FORM: &'static str = "bytes: a number, or a text like \"64KiB\" or \"16MiB\"";

    fn read(found: &DeValue<'_>) -> Option<Self> {
        if let DeValue::String(text) = found {
            return scaled(text, &[("KiB", 1 << 10), ("MiB", 1 << 20), ("GiB", 1 << 30), ("B", 1)])
                .and_then(|count| usize::try_from(count).ok())
                .map(Self);
        }
        usize::try_from(integer(found)?).ok().map(Self)
    }

    fn written(&self) -> String {
        let count = self.0;
        if count > 0 && count.is_multiple_of(1 << 20) {
            format!("\"{}MiB\"", count >> 20)
        } else if count > 0 && count.is_multiple_of(1 << 10) {
            format!("\"{}KiB\"", count >> 10)
        } else {
            count.to_string()
        }
    }

    fn schema() -> serde_json::Value {
        serde_json::json!({ "anyOf": [
            { "type": "integer", "minimum": 0 },
            { "type": "string", "pattern": "^[0-9]+ *(B|KiB|MiB|GiB)$" },
        ] })
    }
}

impl Value for Millis {
    const FORM: &'static str =
        "a time: milliseconds as a number, or a text like \"250ms\", \"5s\", \"10min\", \"1h\"";

    fn read(found: &DeValue<'_>) -> Option<Self> {
        if let DeValue::String(text) = found {
            let units = [("ms", 1), ("min", 60_000), ("s", 1000), ("h", 3_600_000)];
            return scaled(text, &units).map(Self::new);
        }
        u64::try_from(integer(found)?).ok().map(Self::new)
    }

    fn written(&self) -> String {
        let ms = self.count();
        match ms {
            0 => "0".to_owned(),
            _ if ms.is_multiple_of(3_600_000) => format!("\"{}h\"", ms / 3_600_000),
            _ if ms.is_multiple_of(60_000) => format!("\"{}min\"", ms / 60_000),
            _ if ms.is_multiple_of(1000) => format!("\"{}s\"", ms / 1000),
            _ => format!("\"{ms}ms\""),
        }
    }

    fn schema() -> serde_json::Value {
        serde_json::json!({ "anyOf": [
            { "type": "integer", "minimum": 0 },
            { "type": "string", "pattern": "^[0-9]+ *(ms|s|min|h)$" },
        ] })
    }
}

impl Value for bool {
    const FORM: &'static str = "true or false";

    fn read(found: &DeValue<'_>) -> Option<Self> {
        found.as_bool()
    }

    fn written(&self) -> String {
        self.to_string()
    }

    fn schema() -> serde_json::Value {
        serde_json::json!({ "type": "boolean" })
    }
}

impl Value for Consistency {
    const FORM: &'static str = "\"primary\", \"any\", or \"bounded(LAG)\" like \"bounded(500ms)\"";

    fn read(found: &DeValue<'_>) -> Option<Self> {
        found.as_str()?.parse().ok()
    }

    fn written(&self) -> String {
        format!("\"{self}\"")
    }

    fn schema() -> serde_json::Value {
        serde_json::json!({
            "type": "string",
            "pattern": "^(primary|any|bounded\\([0-9]+ *(ms|s)?\\))$",
        })
    }
}

impl Value for String {
    const FORM: &'static str = "a text";

    fn read(found: &DeValue<'_>) -> Option<Self> {
        found.as_str().map(str::to_owned)
    }

    fn written(&self) -> String {
        format!("\"{self}\"")
    }

    fn schema() -> serde_json::Value {
        serde_json::json!({ "type": "string" })
    }
}

impl Value for UrlTemplate {
    const FORM: &'static str = "a URL like \"http://{host}:8008/primary\"";

    fn read(found: &DeValue<'_>) -> Option<Self> {
        let text = found.as_str()?;
        let fits = text.starts_with("http://") && text.bytes().all(|byte| byte.is_ascii_graphic());
        fits.then(|| Self::new(text))
    }

    fn written(&self) -> String {
        self.0.written()
    }

    fn schema() -> serde_json::Value {
        serde_json::json!({ "type": "string", "pattern": "^http://[!-~]+$" })
    }
}

impl Value for Vec<String> {
    const FORM: &'static str = "a list of texts";

    fn read(found: &DeValue<'_>) -> Option<Self> {
        found.as_array()?.iter().map(|item| String::read(item.get_ref())).collect()
    }

    fn written(&self) -> String {
        let items: Vec<String> = self.iter().map(Value::written).collect();
        format!("[{}]", items.join(", "))
    }

    fn schema() -> serde_json::Value {
        serde_json::json!({ "type": "array", "items": { "type": "string" } })
    }
}

/// A setting that may be left out and then has no value.
impl Value for Option<String> {
    const FORM: &'static str = String::FORM;

    fn read(found: &DeValue<'_>) -> Option<Self> {
        String::read(found).map(Some)
    }

    fn written(&self) -> String {
        self.as_ref().map_or_else(String::new, Value::written)
    }

    fn schema() -> serde_json::Value {
        String::schema()
    }
}

/// A text that is never written anywhere.
impl Value for Option<Secret> {
    const FORM: &'static str = String::FORM;

    fn read(found: &DeValue<'_>) -> Option<Self> {
        String::read(found).map(|text| Some(Secret::new(text)))
    }

    fn written(&self) -> String {
        String::new()
    }

    fn schema() -> serde_json::Value {
        String::schema()
    }
}

/// An integer in any of the bases that TOML has.
fn integer(found: &DeValue<'_>) -> Option<i64> {
    let integer = found.as_integer()?;
    i64::from_str_radix(integer.as_str(), integer.radix()).ok()
}

/// The number before one of `units`, times the unit.
fn scaled(text: &str, units: &[(&str, u64)]) -> Option<u64> {
    let (digits, factor) =
        units.iter().find_map(|(unit, factor)| Some((text.strip_suffix(unit)?, factor)))?;
    let digits = digits.trim_end_matches(' ');
    if digits.is_empty() || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    digits.parse::<u64>().ok()?.checked_mul(*factor)
}

/// Declares a section: a struct with a default, rows of the table of settings,
/// and a reader. The description of a field is its documentation.
///
/// `least => most` are optional limits, in the setting's own type.
macro_rules! section {
    (
        $(#[doc = $about:literal])+
        $name:ident in $prefix:literal {
            $(
                $(#[doc = $doc:literal])+
                $field:ident: $kind:ty = $default:expr $(, $least:expr => $most:expr)?;
            )+
        }
    ) => {
        $(#[doc = $about])+
        #[allow(unreachable_pub, reason = "one section stays inside")]
        #[derive(Clone, Debug, PartialEq, Eq)]
        pub struct $name {
            $( $(#[doc = $doc])+ pub $field: $kind, )+
        }

        impl Default for $name {
            fn default() -> Self {
                Self { $( $field: $default, )+ }
            }
        }

        impl $name {
            /// The section's rows of the table of settings.
            pub(crate) const TABLE: &'static [$crate::config::Setting] = &[
                $( $crate::config::Setting {
                    path: concat!($prefix, stringify!($field)),
                    form: <$kind as $crate::config::setting::Value>::FORM,
                    default: || $crate::config::setting::Value::written(&Self::default().$field),
                    limits: || {
                        #[allow(unused_mut, unused_assignments)]
                        let mut limits = None;
                        $(
                            let (least, most): ($kind, $kind) = ($least, $most);
                            limits = Some((
                                $crate::config::setting::Value::written(&least),
                                $crate::config::setting::Value::written(&most),
                            ));
                        )?
                        limits
                    },
                    schema: <$kind as $crate::config::setting::Value>::schema,
                    doc: &[$($doc),+],
                }, )+
            ];

            /// The values in the order of the rows, as one would write them;
            /// a secret is empty.
            #[allow(dead_code, reason = "a list's items have no values of the whole")]
            pub(crate) fn written(&self) -> Vec<String> {
                vec![$( $crate::config::setting::Value::written(&self.$field), )+]
            }

            /// The section as `read` finds its settings; a setting that is
            /// not found keeps its default.
            pub(crate) fn read_from(reader: &mut $crate::config::reader::Reader<'_>) -> Self {
                let mut section = Self::default();
                $( reader.setting(
                    concat!($prefix, stringify!($field)),
                    &mut section.$field,
                    |_value: &$kind| {
                        $(
                            let (least, most): ($kind, $kind) = ($least, $most);
                            if *_value < least || *_value > most {
                                return Some((
                                    $crate::config::setting::Value::written(&least),
                                    $crate::config::setting::Value::written(&most),
                                ));
                            }
                        )?
                        None
                    },
                ); )+
                section
            }
        }
    };
}

/// Declares a setting whose values are words.
macro_rules! words {
    (
        $(#[doc = $about:literal])+
        $name:ident {
            $( $(#[doc = $doc:literal])+ $(#[$default:ident])? $variant:ident = $word:literal, )+
        }
    ) => {
        $(#[doc = $about])+
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
        pub enum $name {
            $( $(#[doc = $doc])+ $(#[$default])? $variant, )+
        }

        impl $name {
            const WORDS: &'static [(&'static str, Self)] = &[$( ($word, Self::$variant) ),+];

            /// The word that the file uses.
            pub const fn name(self) -> &'static str {
                match self {
                    $( Self::$variant => $word, )+
                }
            }
        }

        impl $crate::config::setting::Value for $name {
            const FORM: &'static str = concat!("one of", $( " `", $word, "`" ),+);

            fn read(found: &toml::de::DeValue<'_>) -> Option<Self> {
                let word = found.as_str()?;
                Self::WORDS.iter().find(|(name, _)| *name == word).map(|(_, value)| *value)
            }

            fn written(&self) -> String {
                format!("\"{}\"", self.name())
            }

            fn schema() -> serde_json::Value {
                serde_json::json!({ "enum": [$( $word ),+] })
            }
        }
    };
}

pub(crate) use {section, words};
