//! Built-in functions whose behaviour is known without a catalog.
//!
//! What is not listed counts as volatile and as able to change the session. A
//! name is trusted only unqualified or in `pg_catalog`. The lists follow the
//! volatility that the manual and `pg_proc` state, and leave out what reads
//! another table, writes, locks or waits.

/// How far a function call may be moved from where the client thinks it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Nature {
    /// Depends on its arguments and the catalogs only.
    Neutral,
    /// Reads the transaction's or the session's state.
    Bound,
    /// Answers otherwise each time or on each node, and touches nothing.
    Loose,
    /// Must run on a primary, but leaves the session as it is.
    Primary,
    /// Not known: may do anything.
    Unknown,
}

/// The nature of the function `name`, spelled as the catalog does.
pub(crate) fn nature(name: &str) -> Nature {
    if has(NEUTRAL, name) || name.starts_with("json") && has(JSON, name) {
        Nature::Neutral
    } else if has(BOUND, name) {
        Nature::Bound
    } else if has(LOOSE, name) {
        Nature::Loose
    } else if has(PRIMARY, name) {
        Nature::Primary
    } else {
        Nature::Unknown
    }
}

/// Whether a word before a parenthesis can't be a function's name.
pub(crate) fn is_reserved(word: &str) -> bool {
    has(RESERVED, word)
}

/// Whether a word before a parenthesis may be part of the grammar.
pub(crate) fn is_syntax(word: &str) -> bool {
    has(SYNTAX, word)
}

fn has(list: &str, name: &str) -> bool {
    list.split_ascii_whitespace().any(|entry| entry == name)
}

const RESERVED: &str = "
in values and or not using on as exists any all some where select from join lateral group case when
then else returning distinct limit offset union intersect except array row between like ilike
similar is table default interval having with window only grouping cast operator
varchar char character numeric decimal dec bit float time timestamp national nchar";

const SYNTAX: &str = "
over filter by sets rollup cube set recursive materialized conflict key partition varying timestamptz
timetz bpchar";

const NEUTRAL: &str = "
count sum avg min max array_agg string_agg bool_and bool_or every bit_and bit_or bit_xor any_value
stddev stddev_pop stddev_samp variance var_pop var_samp corr covar_pop covar_samp regr_slope
regr_intercept regr_count regr_r2 regr_avgx regr_avgy regr_sxx regr_syy regr_sxy mode
percentile_cont percentile_disc row_number rank dense_rank percent_rank cume_dist ntile lag lead
first_value last_value nth_value coalesce nullif greatest least abs ceil ceiling floor round trunc
sign mod div power sqrt cbrt exp ln log log10 pi degrees radians sin cos tan asin acos atan atan2
sinh cosh tanh gcd lcm factorial width_bucket scale min_scale trim_scale
lower upper initcap length char_length character_length octet_length bit_length btrim ltrim rtrim
trim substr substring left right lpad rpad repeat replace reverse position strpos overlay
split_part starts_with concat concat_ws format translate ascii chr md5 sha224 sha256 sha384 sha512
encode decode to_hex quote_ident quote_literal quote_nullable regexp_match regexp_matches
regexp_replace regexp_split_to_array regexp_split_to_table regexp_count regexp_like regexp_substr
regexp_instr string_to_array string_to_table array_to_string unistr normalize convert_from
convert_to to_ascii parse_ident get_byte set_byte get_bit set_bit bit_count
array_length array_upper array_lower array_ndims array_dims array_append array_prepend array_cat
array_remove array_replace array_position array_positions cardinality array_fill unnest
generate_series generate_subscripts trim_array
to_char to_date to_number to_timestamp date_part date_trunc date_bin extract make_date make_time
make_timestamp make_interval justify_days justify_hours justify_interval isfinite timezone
row_to_json to_json to_jsonb array_to_json hstore_to_json
lower_inc upper_inc lower_inf upper_inf isempty range_merge int4range int8range numrange tsrange
tstzrange daterange
host network netmask broadcast masklen family text inet_same_family
to_tsvector to_tsquery plainto_tsquery phraseto_tsquery websearch_to_tsquery ts_rank ts_rank_cd
ts_headline setweight strip numnode querytree
int2 int4 int8 float4 float8 bool date name oid regclass
num_nonnulls num_nulls pg_typeof pg_column_size
xmlelement xmlforest xmlagg xmlconcat xpath
version current_database current_catalog current_schema current_user session_user user
pg_get_userbyid pg_table_is_visible pg_type_is_visible pg_function_is_visible
pg_operator_is_visible pg_opclass_is_visible pg_opfamily_is_visible pg_conversion_is_visible
pg_statistics_obj_is_visible pg_ts_config_is_visible pg_ts_dict_is_visible
pg_ts_parser_is_visible pg_ts_template_is_visible pg_collation_is_visible
format_type pg_get_expr pg_get_indexdef pg_get_constraintdef pg_get_viewdef pg_get_ruledef
pg_get_triggerdef pg_get_functiondef pg_get_function_arguments pg_get_function_result
pg_get_function_identity_arguments pg_get_function_arg_default pg_get_function_sqlbody
pg_get_partkeydef pg_get_partition_constraintdef pg_get_statisticsobjdef
pg_get_statisticsobjdef_columns pg_get_serial_sequence pg_get_keywords pg_get_replica_identity_index
pg_relation_is_publishable pg_relation_is_updatable pg_column_is_updatable
pg_partition_ancestors pg_partition_tree pg_partition_root pg_index_column_has_property
pg_index_has_property pg_indexam_has_property pg_char_to_encoding pg_encoding_to_char
pg_options_to_table obj_description col_description shobj_description
has_table_privilege has_schema_privilege has_database_privilege has_column_privilege
has_any_column_privilege has_function_privilege has_sequence_privilege has_type_privilege
has_tablespace_privilege has_language_privilege pg_has_role aclexplode acldefault
array_in array_recv to_regclass to_regtype to_regproc to_regnamespace to_regrole to_regprocedure
to_regoper oidvectortypes pg_get_publication_tables pg_describe_object pg_identify_object
information_schema._pg_expandarray _pg_expandarray pg_tablespace_location pg_sequence_parameters
pg_available_extensions pg_available_extension_versions pg_get_catalog_foreign_keys
int4in int8in textin namein oidin json_each json_object_keys";

const JSON: &str = "
json_agg jsonb_agg json_object_agg jsonb_object_agg json_build_object jsonb_build_object
json_build_array jsonb_build_array json_array_elements jsonb_array_elements
json_array_elements_text jsonb_array_elements_text json_array_length jsonb_array_length json_each
jsonb_each json_each_text jsonb_each_text json_extract_path jsonb_extract_path
json_extract_path_text jsonb_extract_path_text json_object jsonb_object json_object_keys
jsonb_object_keys json_populate_record jsonb_populate_record json_populate_recordset
jsonb_populate_recordset json_strip_nulls jsonb_strip_nulls json_to_record jsonb_to_record
json_to_recordset jsonb_to_recordset json_typeof jsonb_typeof jsonb_set jsonb_set_lax jsonb_insert
jsonb_pretty jsonb_path_exists jsonb_path_match jsonb_path_query jsonb_path_query_array
jsonb_path_query_first json_exists json_value json_query json_array json_arrayagg json_objectagg
json_scalar json_serialize";

const BOUND: &str = "
now transaction_timestamp statement_timestamp age current_timestamp localtimestamp current_time
localtime current_date current_setting current_schemas pg_my_temp_schema pg_is_other_temp_schema
make_timestamptz";

const LOOSE: &str = "
random clock_timestamp timeofday gen_random_uuid uuidv4 uuidv7 pg_sleep pg_sleep_for pg_sleep_until
pg_backend_pid pg_is_in_recovery pg_postmaster_start_time pg_conf_load_time inet_client_addr
inet_client_port inet_server_addr inet_server_port pg_size_pretty pg_relation_size
pg_total_relation_size pg_table_size pg_indexes_size pg_database_size pg_tablespace_size
pg_relation_filenode";

const PRIMARY: &str = "
nextval txid_current pg_current_xact_id txid_current_snapshot pg_current_snapshot
pg_current_xact_id_if_assigned txid_current_if_assigned
pg_current_wal_lsn pg_current_wal_insert_lsn pg_last_wal_replay_lsn pg_last_wal_receive_lsn
pg_blocking_pids
pg_safe_snapshot_blocking_pids pg_cancel_backend pg_terminate_backend pg_notify
pg_advisory_xact_lock pg_advisory_xact_lock_shared pg_try_advisory_xact_lock
pg_try_advisory_xact_lock_shared pg_stat_get_activity pg_stat_get_backend_idset
pg_stat_get_numscans pg_stat_get_live_tuples pg_lock_status pg_show_all_settings
pg_listening_channels pg_get_serial_sequence pg_sequence_last_value pg_reload_conf
pg_export_snapshot";
