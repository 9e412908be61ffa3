//! Words that a read over several shards may not hold: functions that work on
//! more than one row, that depend on the server they run on, or that are not
//! known; system columns; subqueries.

use crate::sql::functions::{self, Nature};
use crate::sql::lex::TokenKind;
use crate::sql::token::{Kind, Tokens};

use super::clauses::Clauses;
use super::several_shards;
use crate::route::RouteError;
use crate::route::planner::World;
use crate::route::volatility;

/// Refuses what does not work row by row, or within one group.
pub(super) fn check(t: &Tokens<'_>, clauses: &Clauses) -> Result<(), RouteError> {
    let windowed = (1..t.len()).any(|i| t.is_word(i, "over") && t.is_punct(i - 1, ")"));
    if windowed {
        return Err(several_shards("a window function", "fix the sharding key"));
    }
    for i in 0..t.len() {
        check_word(t, i)?;
        let opens = t.is_punct(i, "(") && i > 0;
        if opens {
            if ["select", "with", "values", "table"].iter().any(|word| t.is_word(i + 1, word)) {
                return Err(several_shards("a subquery", "fix the sharding key"));
            }
            let aggregates = match clauses.group {
                Some(_) => Aggregates::Before(clauses.tail),
                None => Aggregates::Nowhere,
            };
            check_call(t, i - 1, aggregates)?;
        }
    }
    Ok(())
}

/// Whether nothing in it works on more than a row but plain aggregates.
pub(super) fn is_rowwise(t: &Tokens<'_>) -> bool {
    let calls = (1..t.len()).filter(|i| t.is_punct(*i, "("));
    (0..t.len()).all(|i| check_word(t, i).is_ok() && !t.is_word(i, "over"))
        && calls.into_iter().all(|open| {
            let name = t.name(open - 1).unwrap_or_default();
            let query = ["select", "with", "values", "table"];
            let syntax = has("grouping rollup cube sets", &name);
            !query.iter().any(|word| t.is_word(open + 1, word))
                && (syntax || check_call(t, open - 1, Aggregates::Anywhere).is_ok())
        })
}

/// Whether it is an aggregate function.
pub(super) fn is_aggregate(name: &str) -> bool {
    has(AGGREGATES, name)
}

/// Where aggregate functions may stand.
#[derive(Clone, Copy)]
enum Aggregates {
    Anywhere,
    /// Before this token, of a statement whose groups lie on one shard.
    Before(usize),
    Nowhere,
}

/// Refuses what one server can't tell of rows that were brought to it: locks,
/// places of rows, what other tables or servers hold, and what changes from call
/// to call.
pub(super) fn check_merged(t: &Tokens<'_>, world: &World<'_>) -> Result<(), RouteError> {
    for i in 0..t.len() {
        let moment = t.name(i).is_some_and(|name| has(MOMENTS, &name));
        if !moment {
            check_word(t, i)?;
        }
        let lock = t.is_word(i, "for")
            && ["update", "share", "no", "key"].iter().any(|word| t.is_word(i + 1, word));
        if lock {
            return Err(several_shards("FOR UPDATE or FOR SHARE", "fix the sharding key"));
        }
        if t.is_punct(i, "(") && i > 0 {
            check_merged_call(t, i - 1, world)?;
        }
    }
    Ok(())
}

fn check_merged_call(t: &Tokens<'_>, at: usize, world: &World<'_>) -> Result<(), RouteError> {
    let quoted = match t.kind(at) {
        Some(Kind::Plain(TokenKind::Word)) => false,
        Some(Kind::Plain(TokenKind::Quoted | TokenKind::UnicodeQuoted)) => true,
        _ => return Ok(()),
    };
    let name = t.name(at).unwrap_or_default();
    let schema = (at >= 2 && t.is_punct(at - 1, ".")).then(|| t.name(at - 2).unwrap_or_default());
    if !quoted
        && schema.is_none()
        && (functions::is_reserved(&name) || has(SYNTAX, &name) || has(MERGED_SYNTAX, &name))
    {
        return Ok(());
    }
    // A list of column names of a table, an alias or a common table expression.
    let after = t.after_parens(at + 1);
    let cte = t.is_word(after, "as")
        && (t.is_punct(after + 1, "(")
            || t.is_word(after + 1, "materialized")
            || t.are_words(after + 1, &["not", "materialized"]));
    if schema.is_none() && (cte || at > 0 && (t.is_word(at - 1, "as") || t.is_punct(at - 1, ")"))) {
        return Ok(());
    }
    let own = [SCALARS, AGGREGATES, WINDOWS, SETS, MOMENTS_CALLED];
    let built_in = own.iter().any(|list| has(list, &name));
    match schema.as_deref() {
        None | Some("pg_catalog") if built_in => Ok(()),
        schema => match volatility::nature(schema, &name, world) {
            Some(Nature::Neutral) => Ok(()),
            Some(Nature::Bound | Nature::Loose | Nature::Primary | Nature::Unknown) | None => {
                Err(unknown(&name))
            }
        },
    }
}

/// Whether it is a function that depends on its arguments and the session's
/// settings only.
pub(super) fn is_scalar(name: &str) -> bool {
    has(SCALARS, name)
}

fn check_word(t: &Tokens<'_>, i: usize) -> Result<(), RouteError> {
    if t.kind(i) == Some(Kind::Hint) {
        return Err(several_shards(
            "a routing hint within the statement",
            "put the comment before the statement",
        ));
    }
    if t.is_word(i, "tablesample") {
        return Err(several_shards("TABLESAMPLE", "fix the sharding key"));
    }
    let Some(name) = t.name(i) else {
        if t.kind(i) == Some(Kind::Plain(TokenKind::UnicodeQuoted)) {
            return Err(several_shards("a name written U&\"…\"", "write the name itself"));
        }
        return Ok(());
    };
    if has(SYSTEM_COLUMNS, &name) {
        return Err(several_shards(
            &format!("the system column or value {name}"),
            "it means something else on every shard; leave it out, or fix the sharding key",
        ));
    }
    let cast = i > 0 && t.is_punct(i - 1, "::") || t.is_word(i.wrapping_sub(1), "as");
    if cast && name.starts_with("reg") && has(REG_TYPES, &name) {
        return Err(several_shards(
            &format!("the type {name}"),
            "it means something else on every shard; leave it out, or fix the sharding key",
        ));
    }
    Ok(())
}

/// Checks the function at `at`, before a parenthesis, if it is one.
fn check_call(t: &Tokens<'_>, at: usize, aggregates: Aggregates) -> Result<(), RouteError> {
    let quoted = match t.kind(at) {
        Some(Kind::Plain(TokenKind::Word)) => false,
        Some(Kind::Plain(TokenKind::Quoted | TokenKind::UnicodeQuoted)) => true,
        _ => return Ok(()),
    };
    let name = t.name(at).unwrap_or_default();
    let qualified = at >= 2 && t.is_punct(at - 1, ".");
    if !quoted && !qualified && (functions::is_reserved(&name) || has(SYNTAX, &name)) {
        return Ok(());
    }
    // A table's or an alias's list of column names.
    if at > 0 && t.is_word(at - 1, "as") {
        return Ok(());
    }
    if qualified && t.name(at - 2).as_deref() != Some("pg_catalog") {
        return Err(unknown(&name));
    }
    if has(AGGREGATES, &name) {
        match aggregates {
            Aggregates::Anywhere => return Ok(()),
            Aggregates::Before(end) if at < end => return Ok(()),
            Aggregates::Before(_) | Aggregates::Nowhere => {}
        }
        return Err(several_shards(
            &format!("the aggregate function {name}"),
            "group by the sharding key, or fix its value",
        ));
    }
    if has(SCALARS, &name) { Ok(()) } else { Err(unknown(&name)) }
}

/// Whether a column that is a call of this function has its name.
pub(super) fn names_its_column(name: &str) -> bool {
    name != "trim" && (has(SCALARS, name) || has(AGGREGATES, name))
}

fn unknown(name: &str) -> RouteError {
    several_shards(
        &format!("the function {name}"),
        "only built-in functions that depend on nothing but their arguments are known here; fix the sharding key",
    )
}

fn has(list: &str, name: &str) -> bool {
    list.split_ascii_whitespace().any(|entry| entry == name)
}

/// Differ from server to server for the same row.
const SYSTEM_COLUMNS: &str = "
ctid xmin xmax cmin cmax tableoid current_catalog system_user
current_timestamp current_time current_date localtime localtimestamp";

const REG_TYPES: &str = "
regclass regproc regprocedure regoper regoperator regtype regrole regnamespace regconfig
regdictionary regcollation";

/// Words of the grammar before a parenthesis, besides the reserved ones.
const SYNTAX: &str =
    "filter by sets rollup cube varying timestamptz timetz bpchar within precision";

/// Functions over all rows of a group.
const AGGREGATES: &str = "
count sum avg min max array_agg string_agg bool_and bool_or every bit_and bit_or bit_xor any_value
stddev stddev_pop stddev_samp variance var_pop var_samp corr covar_pop covar_samp regr_slope
regr_intercept regr_count regr_r2 regr_avgx regr_avgy regr_sxx regr_syy regr_sxy mode
percentile_cont percentile_disc json_agg jsonb_agg json_object_agg jsonb_object_agg";

/// Functions that depend on their arguments and the session's settings only.
const SCALARS: &str = "
coalesce nullif greatest least abs ceil ceiling floor round trunc sign mod div power sqrt cbrt exp
ln log log10 pi degrees radians sin cos tan asin acos atan atan2 sinh cosh tanh gcd lcm factorial
width_bucket scale min_scale trim_scale
lower upper initcap length char_length character_length octet_length bit_length btrim ltrim rtrim
trim substr substring left right lpad rpad repeat replace reverse position strpos overlay
split_part starts_with concat concat_ws format translate ascii chr md5 sha224 sha256 sha384 sha512
encode decode to_hex quote_ident quote_literal quote_nullable regexp_match regexp_replace
regexp_count regexp_like regexp_substr regexp_instr string_to_array array_to_string
get_byte set_byte get_bit set_bit bit_count
array_length array_upper array_lower array_ndims array_dims array_append array_prepend array_cat
array_remove array_replace array_position array_positions cardinality
to_char to_date to_number to_timestamp date_part date_trunc date_bin extract make_date make_time
make_timestamp make_interval justify_days justify_hours justify_interval isfinite timezone
to_json to_jsonb row_to_json
lower_inc upper_inc lower_inf upper_inf isempty
host network netmask broadcast masklen family
int2 int4 int8 float4 float8 bool date num_nonnulls num_nulls
json_array_length jsonb_array_length json_extract_path jsonb_extract_path json_extract_path_text
jsonb_extract_path_text json_build_object jsonb_build_object json_build_array jsonb_build_array
json_typeof jsonb_typeof jsonb_set jsonb_strip_nulls json_strip_nulls jsonb_pretty
jsonb_path_exists jsonb_path_match jsonb_path_query_first";

/// Words of the grammar before a parenthesis that stand between relations.
const MERGED_SYNTAX: &str = "
over partition materialized recursive grouping natural full left right inner outer within";

/// Functions over the rows of a window.
const WINDOWS: &str = "
row_number rank dense_rank percent_rank cume_dist ntile lag lead first_value last_value nth_value";

/// Functions that give any number of rows.
const SETS: &str = "
generate_series generate_subscripts unnest regexp_matches regexp_split_to_table string_to_table
regexp_split_to_array json_each jsonb_each json_each_text jsonb_each_text json_array_elements
jsonb_array_elements json_array_elements_text jsonb_array_elements_text json_object_keys
jsonb_object_keys jsonb_path_query jsonb_path_query_array json_to_record jsonb_to_record
json_to_recordset jsonb_to_recordset array_to_json";

/// The beginning of the transaction, which is one for the whole answer.
const MOMENTS: &str = "current_timestamp current_time current_date localtime localtimestamp";
const MOMENTS_CALLED: &str = "
now transaction_timestamp age current_timestamp current_time localtime localtimestamp";
