//! Names of types, as in a cast.

use crate::sql::tree::TypeName;

use super::cursor::{Read, Reader};
use super::words::Category;

impl Reader<'_> {
    /// A type's name.
    pub(super) fn type_name(&mut self) -> Read<TypeName> {
        self.eat_word("setof");
        let mut found = self.simple_type()?;
        if self.eat_word("array") {
            found.array = true;
            if self.eat_punct("[") {
                self.at += 1;
                self.expect_punct("]")?;
            }
        }
        while self.eat_punct("[") {
            found.array = true;
            if self.literal_at(self.at).is_some() {
                self.at += 1;
            }
            self.expect_punct("]")?;
        }
        Ok(found)
    }

    pub(super) fn simple_type(&mut self) -> Read<TypeName> {
        let plain = |word: &str, modified| TypeName { word: word.into(), modified, array: false };
        let quoted = self.t.bytes(self.at).first() == Some(&b'"');
        let first = self.t.name(self.at).filter(|_| !quoted).unwrap_or_default();
        let built_in = match &*first {
            "int" | "integer" => "int4",
            "smallint" => "int2",
            "bigint" => "int8",
            "real" => "float4",
            "float" => "float8",
            "decimal" | "dec" | "numeric" => "numeric",
            "boolean" => "bool",
            "varchar" => "varchar",
            "json" => "json",
            "double" if self.t.is_word(self.at + 1, "precision") => {
                self.at += 2;
                return Ok(plain("float8", false));
            }
            "bit" => {
                self.at += 1;
                let varying = self.eat_word("varying");
                let written = self.modifiers()?;
                let word = if varying { "varbit" } else { "bit" };
                // Without a length, `bit` is `bit(1)`.
                return Ok(plain(word, written || !varying));
            }
            "character" | "char" | "national" | "nchar" => return self.character(),
            "timestamp" | "time" => {
                self.at += 1;
                let modified = self.modifiers()?;
                let zone = self.eat_words(&["with", "time", "zone"]);
                self.eat_words(&["without", "time", "zone"]);
                let word = match (&*first, zone) {
                    ("timestamp", true) => "timestamptz",
                    ("timestamp", false) => "timestamp",
                    (_, true) => "timetz",
                    (_, false) => "time",
                };
                return Ok(plain(word, modified));
            }
            "interval" => {
                self.at += 1;
                let precise = self.modifiers()?;
                let fields = self.interval_fields()?;
                return Ok(plain("interval", precise || fields));
            }
            _ => return self.generic_type(),
        };
        self.at += 1;
        let modified = self.modifiers()?;
        Ok(plain(built_in, modified))
    }

    fn character(&mut self) -> Read<TypeName> {
        self.eat_word("national");
        if !self.eat_any(&["character", "char", "nchar"]) {
            return Err(self.unexpected());
        }
        let varying = self.eat_word("varying");
        let written = self.modifiers()?;
        // Without a length, `character` is `character(1)`.
        let (word, modified) = if varying { ("varchar", written) } else { ("bpchar", true) };
        Ok(TypeName { word: word.into(), modified, array: false })
    }

    fn generic_type(&mut self) -> Read<TypeName> {
        match self.category_at(self.at) {
            Some(Category::Free | Category::TypeOrFunction) => {}
            Some(Category::ColumnName | Category::Reserved) | None => return Err(self.unexpected()),
        }
        let mut word = self.label()?;
        let mut system = true;
        while self.eat_punct(".") {
            system = &*word == "pg_catalog";
            word = self.label()?;
        }
        if self.t.is_operator(self.at, "%") && self.t.is_word(self.at + 1, "type") {
            self.at += 2;
            system = false;
        }
        let modified = self.modifiers()?;
        let word = if system { word } else { "".into() };
        Ok(TypeName { word, modified, array: false })
    }

    /// `(10, 2)` and its like.
    fn modifiers(&mut self) -> Read<bool> {
        if !self.punct("(") {
            return Ok(false);
        }
        let close = self.closing(self.at).ok_or_else(|| self.unexpected())?;
        self.at = close + 1;
        Ok(true)
    }

    /// `YEAR TO MONTH` and its like.
    pub(super) fn interval_fields(&mut self) -> Read<bool> {
        const FIELDS: &[&str] = &["year", "month", "day", "hour", "minute", "second"];
        if !self.any_word(FIELDS) {
            return Ok(false);
        }
        self.at += 1;
        if self.word("to") && self.any_word_at(self.at + 1, FIELDS) {
            self.at += 2;
        }
        self.modifiers()?;
        Ok(true)
    }
}
