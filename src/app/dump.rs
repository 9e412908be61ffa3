//! The text that pg_dump writes, as the things that it makes.
//!
//! Splits it where a comment announces the next thing, and says of each what it
//! is. It runs nothing and knows no server. A comment within a function's body
//! or another string announces nothing.
//!
//! Source: PostgreSQL manual, "pg_dump"; the form of the comments is that of
//! `pg_restore --list`.

use crate::sql::lex::ScanError;
use crate::sql::token::tokens;

/// One thing of a dump.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Entry {
    /// `TABLE`, `INDEX`, `FK CONSTRAINT`, …
    pub(super) kind: String,
    /// Its schema; empty for what is in none.
    pub(super) schema: String,
    /// Its name, after the table's if it belongs to one; with a function's
    /// types.
    pub(super) name: String,
    /// What makes it.
    pub(super) sql: String,
}

/// The things of a dump, in its order.
pub(super) fn entries(dump: &str) -> Vec<Entry> {
    let whole = dump.rsplit_once(END).map_or(dump, |(whole, _)| whole);
    let mut found: Vec<Entry> = Vec::new();
    let mut lines = whole.lines().peekable();
    while let Some(line) = lines.next() {
        let begins = (line == "--").then(|| lines.peek().and_then(|next| heading(next))).flatten();
        let begins = begins.filter(|_| found.last().is_none_or(Entry::is_whole));
        if let Some(entry) = begins {
            found.push(entry);
            lines.next();
        } else if let Some(last) = found.last_mut()
            && !(last.sql.is_empty() && (line == "--" || line.is_empty()))
        {
            last.sql.push_str(line);
            last.sql.push('\n');
        }
    }
    for entry in &mut found {
        entry.sql.truncate(entry.sql.trim_end().len());
    }
    found
}

fn heading(line: &str) -> Option<Entry> {
    let rest =
        line.strip_prefix("-- Name: ").or_else(|| line.strip_prefix("-- Data for Name: "))?;
    // A name may hold what separates it from what follows.
    let (rest, _owner) = rest.rsplit_once("; Owner: ")?;
    let (rest, schema) = rest.rsplit_once("; Schema: ")?;
    let (name, kind) = rest.rsplit_once("; Type: ")?;
    let schema = if schema == "-" { "" } else { schema };
    Some(Entry {
        kind: kind.to_owned(),
        schema: schema.to_owned(),
        name: name.to_owned(),
        sql: String::new(),
    })
}

impl Entry {
    /// Whether no string is open at its end.
    fn is_whole(&self) -> bool {
        !matches!(tokens(self.sql.as_bytes()), Err(ScanError::Unterminated { .. }))
    }

    /// The index's definition without its first words, if it is one that can be
    /// made at any time: not unique, and alone in its entry.
    pub(super) fn plain_index(&self) -> Option<&str> {
        let rest = self.sql.strip_prefix("CREATE INDEX ")?.strip_suffix(';')?;
        (self.kind == "INDEX" && !rest.contains(";\n") && !rest.contains(" ON ONLY "))
            .then_some(rest)
    }

    /// What a comment or a right is for: `TABLE tasks`.
    pub(super) fn is_remark(&self) -> bool {
        matches!(self.kind.as_str(), "COMMENT" | "ACL" | "SECURITY LABEL")
    }
}

/// Nothing follows that makes anything.
const END: &str = "\n--\n-- PostgreSQL database dump complete\n";

#[cfg(test)]
mod tests {
    use super::*;

    const DUMP: &str = "--
-- PostgreSQL database dump
--

\\restrict abc

SET statement_timeout = 0;

--
-- Name: mood; Type: TYPE; Schema: public; Owner: app
--

CREATE TYPE public.mood AS ENUM (
    'good'
);


ALTER TYPE public.mood OWNER TO app;

--
-- Name: f(integer); Type: FUNCTION; Schema: public; Owner: app
--

CREATE FUNCTION public.f(integer) RETURNS integer
    LANGUAGE plpgsql
    AS $$
begin x := 1;
--
-- Name: none; Type: TABLE; Schema: public; Owner: app
--
return 1; end
$$;


--
-- Name: EXTENSION x; Type: COMMENT; Schema: -; Owner: 
--

COMMENT ON EXTENSION x IS 'y';


--
-- Data for Name: odd; Type: TABLE; Schema: x; Type: TABLE DATA; Schema: public; Owner: app
--

INSERT INTO public.odd VALUES (1);


--
-- Name: by_state; Type: INDEX; Schema: public; Owner: app
--

CREATE INDEX by_state ON public.tasks USING btree (state);


--
-- PostgreSQL database dump complete
--

\\unrestrict abc
";

    #[test]
    fn a_dump_is_cut_where_comments_announce_things() {
        let found = entries(DUMP);
        let names: Vec<(&str, &str, &str)> = found
            .iter()
            .map(|one| (one.kind.as_str(), one.schema.as_str(), one.name.as_str()))
            .collect();
        assert_eq!(
            names,
            [
                ("TYPE", "public", "mood"),
                ("FUNCTION", "public", "f(integer)"),
                ("COMMENT", "", "EXTENSION x"),
                ("TABLE DATA", "public", "odd; Type: TABLE; Schema: x"),
                ("INDEX", "public", "by_state"),
            ]
        );
        assert!(found[0].sql.starts_with("CREATE TYPE") && found[0].sql.ends_with("TO app;"));
        assert!(
            found[1].sql.contains("-- Name: none; Type: TABLE") && found[1].sql.ends_with("$$;")
        );
        assert_eq!(found[3].sql, "INSERT INTO public.odd VALUES (1);");
    }

    #[test]
    fn only_a_plain_index_may_be_made_later() {
        let index = |sql: &str| Entry { sql: sql.to_owned(), ..entries(DUMP).remove(4) };
        let plain = entries(DUMP).remove(4);
        assert_eq!(plain.plain_index(), Some("by_state ON public.tasks USING btree (state)"));
        for sql in [
            "CREATE UNIQUE INDEX i ON t USING btree (a);",
            "CREATE INDEX i ON ONLY t USING btree (a);",
            "CREATE INDEX i ON t USING btree (a);\n\n\nALTER TABLE t CLUSTER ON i;",
        ] {
            assert_eq!(index(sql).plain_index(), None, "{sql}");
        }
    }
}
