//! What a text's plan is once its constants are left out: the targets
//! themselves, or where the values are that decide them.

use std::fmt;

use crate::cluster::Mark;
use crate::shardmap::{Hash, KeyType, KeyspaceId, Map, Touched};
use crate::sql::literal::Literals;
use crate::sql::statement::{Facts, Kind, Span};
use crate::types::{Access, Consistency, Epoch, Format, Oid, ShardId};

use super::copy::AnchoredCheck;
use super::declared::{self, Declared};
use super::error::RouteError;
use super::locate;
use super::place::Open;
use super::read_only::InReadOnly;
use super::scatter::{self, Proven, Scatter};
use super::splice::{self, Splice};
use super::wrapping::{self, Wrapping};

/// The cached plan of a text; belongs to one epoch of the map.
#[derive(Debug)]
pub struct Template {
    pub(crate) epoch: Epoch,
    pub(crate) statements: Box<[Facts]>,
    pub(crate) plan: Plan,
    pub(crate) access: Access,
    /// One statement that only reads or writes rows.
    pub(crate) hot: bool,
    pub(crate) replica_ok: bool,
    pub(crate) read_only: InReadOnly,
    pub(crate) writes_stay: bool,
    pub(crate) reads_stay: bool,
    pub(crate) levels: ReadLevels,
    pub(crate) key_params: Box<[u16]>,
    /// The text and its constants, where the template serves no other text.
    pub(crate) own: Option<OwnText>,
    /// What is put into the text before it is sent.
    pub(crate) splices: Box<[Splice]>,
    /// The condition that a COPY into a sharded table is sent with.
    pub(crate) copy: Option<Box<AnchoredCheck>>,
    /// Names of the temporary tables that it makes on a shard.
    pub(crate) temporary: Box<[Box<str>]>,
    /// The cursor that its only statement is about.
    pub(crate) cursor: Option<Box<str>>,
}

/// The one text that a template was made for.
#[derive(Debug)]
pub(crate) struct OwnText {
    pub(crate) text: Box<[u8]>,
    pub(crate) literals: Literals,
}

/// How the targets are found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Plan {
    /// The same for all values.
    Fixed { targets: Targets, reason: Reason },
    /// All rows that matter have one of these keys, or lie on `single`.
    Keyed(Keyed),
    /// On the one shard there is; these keys tell what of it.
    Marked(Box<Keyed>),
    /// Known to have no route, but the session may handle it by its effect.
    Refused(RouteError),
}

/// The levels that a text's own words and tables ask for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct ReadLevels {
    /// A comment's.
    pub(crate) hinted: Option<Consistency>,
    /// The strictest of its tables'.
    pub(crate) tables: Option<Consistency>,
}

/// The keys that matter.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Keyed {
    pub(crate) sources: Box<[KeySource]>,
    /// Rows with keys between these matter too.
    pub(crate) intervals: Box<[Interval]>,
    /// The shard of tables that are on one shard.
    pub(crate) single: Option<ShardId>,
    /// Tables of which any row may matter; only of a read.
    pub(crate) open: Option<Open>,
    /// Whether several shards are an answer, not an error.
    pub(crate) spread: Spread,
    /// What a comment says; `single` is its shard then.
    pub(crate) hint: Option<Hint>,
    /// Whether rows of several shards are proven to make the answer.
    pub(crate) across: Result<Proven, RouteError>,
}

/// Keys between two values of a keyspace by range.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Interval {
    pub(crate) keyspace: KeyspaceId,
    pub(crate) low: Option<Bound>,
    pub(crate) high: Option<Bound>,
}

/// An end of an interval.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Bound {
    pub(crate) source: KeySource,
    pub(crate) ends: Ends,
}

/// Whether the value itself belongs to the interval.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ends {
    With,
    Before,
}

/// A routing hint that decides.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Hint {
    Shard,
    /// The key's text; the statement's own keys must be the same.
    Key(Box<str>),
}

impl Keyed {
    /// Whether only the values of `sources` and `single` decide.
    pub(crate) fn is_simple(&self) -> bool {
        self.intervals.is_empty() && self.open.is_none() && self.hint.is_none()
    }

    /// The keyspace of all its tables, if they have the same.
    pub(crate) fn keyspace(&self) -> Option<KeyspaceId> {
        let open = self.open.iter().flat_map(|open| open.keyspaces.iter().copied());
        let intervals = self.intervals.iter().map(|interval| interval.keyspace);
        let mut all =
            self.sources.iter().map(|source| source.keyspace).chain(open).chain(intervals);
        let first = all.next()?;
        all.all(|one| one == first).then_some(first)
    }

    /// All of `sources` must lie on one shard, on `single` if that is given.
    pub(crate) fn one_shard(sources: Vec<KeySource>, single: Option<ShardId>) -> Self {
        let across = Err(RouteError::SeveralShards);
        let (intervals, open, hint) = (Box::default(), None, None);
        let spread = Spread::OneShard;
        Self { sources: sources.into(), intervals, single, open, spread, hint, across }
    }
}

/// Whether a statement may be answered by several shards together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Spread {
    OneShard,
    ManyShards,
}

/// Values of a sharding key, and where they stand.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct KeySource {
    pub(crate) keyspace: KeyspaceId,
    pub(crate) key_type: KeyType,
    pub(crate) place: KeyPlace,
    pub(crate) sign: Sign,
    /// A cast that names the value's type.
    pub(crate) cast: Option<CastTo>,
    pub(crate) role: Role,
    pub(crate) extent: Extent,
    /// Which column of the key it is; the only one's, 0.
    pub(crate) part: u8,
    /// The columns, where it is a key of several.
    pub(crate) parts: Box<[KeySource]>,
}

impl KeySource {
    /// Whether it stands for any number of keys.
    pub(crate) fn is_list(&self) -> bool {
        self.extent == Extent::Array || self.parts.iter().any(Self::is_list)
    }

    /// The values that it is made of.
    pub(crate) fn values(&self) -> &[Self] {
        if self.parts.is_empty() { std::slice::from_ref(self) } else { &self.parts }
    }

    /// The values that it is made of.
    pub(crate) fn values_mut(&mut self) -> &mut [Self] {
        if self.parts.is_empty() { std::slice::from_mut(self) } else { &mut self.parts }
    }
}

/// What a value is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Role {
    /// Rows are compared with it: NULL, or what the key's type can't hold, meets
    /// no row.
    Filter,
    /// A row has it: NULL is an error.
    Row,
}

/// How many keys stand in one place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Extent {
    One,
    /// The elements of an array.
    Array,
    /// A key of several columns, with the hash that its keyspace has.
    Row(Hash),
}

/// The type that a value is cast to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct CastTo(pub(crate) KeyType);

impl CastTo {
    /// The type called `word`, if it is compared with keys of type `key` by
    /// their own equality.
    pub(crate) fn named(word: &str, key: KeyType) -> Option<Self> {
        let cast = match word {
            "int2" => KeyType::Int2,
            "int4" => KeyType::Int4,
            "int8" => KeyType::Int8,
            "numeric" => KeyType::Numeric,
            "text" | "varchar" => KeyType::Text,
            "bpchar" => KeyType::Char,
            "uuid" => KeyType::Uuid,
            "date" => KeyType::Date,
            "timestamptz" => KeyType::Timestamptz,
            "bytea" => KeyType::Bytea,
            _ => return None,
        };
        // A column of type `character` is compared with texts without its
        // padding, but a text with a `character` value is not.
        let alike = match key {
            KeyType::Int2 | KeyType::Int4 | KeyType::Int8 | KeyType::Numeric => {
                cast.is_integer() || cast == KeyType::Numeric
            }
            KeyType::Text | KeyType::Varchar => cast == KeyType::Text,
            KeyType::Char => [KeyType::Char, KeyType::Text].contains(&cast),
            KeyType::Uuid | KeyType::Date | KeyType::Timestamptz | KeyType::Bytea => cast == key,
        };
        alike.then_some(Self(cast))
    }
}

/// Where a key's value stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum KeyPlace {
    /// The constant with this index.
    Literal(u32),
    /// The parameter with this zero-based index.
    Param { index: u16, shared: Shared },
    /// NULL.
    Null,
}

/// Whether a parameter also stands where its type could be inferred otherwise.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Shared {
    KeyOnly,
    Elsewhere,
}

/// A minus before a number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Sign {
    Plain,
    Minus,
}

/// What [`Template::locate`] needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Needs {
    /// Only the text.
    Nothing,
    /// Bound parameters.
    Params,
}

/// Values bound to a statement's parameters.
pub trait Params {
    /// The parameter with this zero-based index; `None` if there is none, or
    /// its bytes have not arrived.
    fn get(&self, index: usize) -> Option<Param<'_>>;
}

/// One bound value.
#[derive(Clone, Copy, Debug)]
pub struct Param<'a> {
    /// The bytes; `None` is NULL.
    pub value: Option<&'a [u8]>,
    /// How the bytes are to be read.
    pub format: Format,
    /// The declared type; zero if the client left it to the server.
    pub oid: Oid,
}

impl Params for [Param<'_>] {
    fn get(&self, index: usize) -> Option<Param<'_>> {
        <[Param<'_>]>::get(self, index).copied()
    }
}

impl Params for Vec<Param<'_>> {
    fn get(&self, index: usize) -> Option<Param<'_>> {
        self.as_slice().get(index).copied()
    }
}

/// Where a text goes, and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Route {
    /// The shards.
    pub targets: Targets,
    /// Why.
    pub reason: Reason,
    /// What of the shard it reads or writes.
    pub mark: Mark,
    /// The moves that its keys are part of, or may be.
    pub touched: Touched,
}

/// The shards that a text goes to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Targets {
    /// This one and no other.
    Shard(ShardId),
    /// Any: the transaction's shard if it has one, else home.
    AnyShard,
    /// The home shard, as part of the transaction.
    Home,
    /// The home shard; outside the transaction while that has no shard and is
    /// read committed.
    HomeOutside,
    /// Every shard, one after the other, stopping at the first error.
    AllInTurn,
    /// A read whose rows may lie on several shards.
    Several(Box<Several>),
    /// The router answers itself.
    Router(RouterCommand),
}

impl Targets {
    /// The same again; what holds no memory needs no call.
    #[inline]
    fn copied(&self) -> Self {
        match self {
            Self::Shard(shard) => Self::Shard(*shard),
            Self::AnyShard => Self::AnyShard,
            Self::Home => Self::Home,
            Self::HomeOutside | Self::AllInTurn | Self::Several(_) | Self::Router(_) => {
                self.clone()
            }
        }
    }
}

/// The shards that may hold a read's rows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Several {
    /// Each once, ascending; at least one.
    pub shards: Box<[ShardId]>,
    /// What keeps it from one shard: the error where only one will do.
    pub why: RouteError,
}

/// Statements that the router answers itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RouterCommand {
    /// EXPLAIN ROUTE: plan the statement and show it.
    ExplainRoute {
        /// The statement after ROUTE.
        statement: Span,
    },
    /// SET keyway.name; `None` is DEFAULT or RESET.
    SetKeyway {
        /// The setting's full name, in lower case.
        name: Box<str>,
        /// The value.
        value: Option<Box<str>>,
        /// SET LOCAL.
        local: bool,
    },
    /// SET keyway.name to a value that can't be read here.
    UnreadValue,
    /// SHOW keyway.name.
    ShowKeyway {
        /// The setting's full name, in lower case.
        name: Box<str>,
    },
}

/// Why a text goes where it goes; `Display` makes the sentence.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reason {
    /// The database has one shard.
    Unsharded,
    /// The sharding key's value.
    Key,
    /// The sharding key is compared with NULL.
    Nothing,
    /// Any of these shards may hold rows.
    Spread,
    /// Every table is on that one shard.
    SingleShard,
    /// Only tables that every shard has.
    Reference,
    /// No table at all.
    NoTable,
    /// Only system catalogs and views.
    Catalog,
    /// Only system catalogs that describe schemas: they show nothing of a
    /// session or of what the server does.
    Schemas,
    /// It names a tenant's schema, or the search path holds one.
    Tenant,
    /// Changes a schema.
    Schema,
    /// Maintains tables on every shard.
    Maintenance,
    /// The session's or the transaction's own state.
    Session,
    /// A cursor of the transaction.
    Cursor,
    /// Notifications meet at home.
    Notify,
    /// Answered by the router.
    Router,
    /// A comment names the shard.
    Hint,
    /// The session's settings name it.
    Declared,
    /// It makes a temporary table, which may be anywhere.
    Temporary,
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Unsharded => "the database is not sharded",
            Self::Key => "the sharding key is fixed by the statement",
            Self::Nothing => "no row can meet its conditions on the sharding key",
            Self::Spread => "its rows may be on several shards",
            Self::SingleShard => "every table it names is on one shard",
            Self::Reference => "it reads only tables that are on every shard",
            Self::NoTable => "it names no table",
            Self::Catalog | Self::Schemas => "it reads only system catalogs",
            Self::Tenant => "it names a tenant's schema, or the search path holds one",
            Self::Schema => "it changes the schema",
            Self::Maintenance => "it maintains tables on every shard",
            Self::Session => "it concerns the session itself",
            Self::Cursor => "it uses a cursor of the transaction",
            Self::Notify => "notifications meet at the home shard",
            Self::Router => "the router answers it",
            Self::Hint => "a comment of the statement says so",
            Self::Temporary => "it makes a temporary table, which is where the session works",
            Self::Declared => "the session's keyway.key or keyway.shard says so",
        })
    }
}

impl Template {
    /// One entry for each statement of the text. Spans are exact unless the
    /// text is plain; a plain text's template serves texts of other lengths.
    pub fn statements(&self) -> &[Facts] {
        &self.statements
    }

    /// Names of the temporary tables that it makes; none on an unsharded
    /// database.
    pub fn temporary(&self) -> &[Box<str>] {
        &self.temporary
    }

    /// Whether the text is exactly one statement that neither steers the
    /// transaction nor changes the session.
    pub fn is_plain(&self) -> bool {
        matches!(&*self.statements, [one] if one.is_plain())
    }

    /// Whether the text is exactly one plain statement that reads or writes rows
    /// of tables: nearly all that is sent.
    #[inline]
    pub const fn is_hot(&self) -> bool {
        self.hot
    }

    /// The epoch of the map it was made for.
    pub const fn epoch(&self) -> Epoch {
        self.epoch
    }

    /// The strongest access of all statements.
    pub const fn access(&self) -> Access {
        self.access
    }

    /// Whether a replica may run it: it reads only, from tables of the map,
    /// with functions known not to write or depend on the session.
    pub const fn replica_ok(&self) -> bool {
        self.replica_ok
    }

    /// Whether it only asks what is in the schemas.
    pub fn asks_schemas(&self) -> bool {
        matches!(self.plan, Plan::Fixed { targets: Targets::HomeOutside, reason: Reason::Schemas })
    }

    /// Where it may run as part of a READ ONLY transaction.
    pub const fn in_read_only(&self) -> InReadOnly {
        self.read_only
    }

    /// What the shards are sent where the targets are several, and how their
    /// rows become one result. `text` is as for [`Template::locate`].
    ///
    /// # Errors
    /// Rows of several shards don't make the answer.
    pub fn scatter(&self, text: &[u8]) -> Result<Scatter, RouteError> {
        let Plan::Keyed(keyed) = &self.plan else { return Err(RouteError::SeveralShards) };
        match &keyed.across {
            Err(error) => Err(error.clone()),
            Ok(proven) => {
                let text = self.own.as_ref().map_or(text, |own| &own.text);
                match self.unwrapped(text)? {
                    Some((_, query)) => scatter::scatter(proven, &query),
                    None => scatter::scatter(proven, text),
                }
            }
        }
    }

    /// What stands around the query that [`Template::scatter`] spreads.
    ///
    /// # Errors
    /// Words that several servers can't obey together.
    pub fn wrapping(&self, text: &[u8]) -> Result<Option<Wrapping>, RouteError> {
        let text = self.own.as_ref().map_or(text, |own| &own.text);
        Ok(self.unwrapped(text)?.map(|(wrapping, _)| wrapping))
    }

    /// The name of the cursor that it declares, fetches from or closes, if it is
    /// one statement.
    pub fn cursor(&self) -> Option<&str> {
        self.cursor.as_deref()
    }

    /// Whether it is one statement around a query, which the session need not
    /// follow.
    pub fn is_wrapping(&self) -> bool {
        matches!(&*self.statements, [one]
            if one.is_plain() && matches!(one.kind, Kind::Explain | Kind::CopyOut)
                || one.kind == Kind::Declare)
    }

    fn unwrapped(&self, text: &[u8]) -> Result<Option<(Wrapping, Vec<u8>)>, RouteError> {
        match &*self.statements {
            [one] => wrapping::unwrap(text, one.kind),
            _ => Ok(None),
        }
    }

    /// Whether the catalogs prove that it writes no rows but those of the keys
    /// that it names. True of what writes nothing.
    pub const fn writes_stay(&self) -> bool {
        self.writes_stay
    }

    /// Whether the catalogs prove that it reads no rows but those of the keys
    /// that it names, and rows of tables whose writes mark their whole shard.
    pub const fn reads_stay(&self) -> bool {
        self.reads_stay
    }

    /// Whether a comment of its text says where it runs.
    pub fn is_placed_by_comment(&self) -> bool {
        match &self.plan {
            Plan::Fixed { reason, .. } => *reason == Reason::Hint,
            Plan::Keyed(keyed) => keyed.hint.is_some(),
            Plan::Marked(_) | Plan::Refused(_) => false,
        }
    }

    /// How fresh its reads must be for a session that has asked for `session`;
    /// `None` leaves it to the configuration. A comment comes first, then the
    /// session, then the tables.
    pub fn level(&self, session: Option<Consistency>) -> Option<Consistency> {
        self.levels.hinted.or(session).or(self.levels.tables)
    }

    /// What is sent in place of `text`, if that differs: a text of the normal
    /// form that was planned.
    #[inline]
    pub fn rewritten(&self, text: &[u8]) -> Option<Vec<u8>> {
        if self.splices.is_empty() { None } else { splice::apply(text, &self.splices) }
    }

    /// Whether it copies rows into a sharded table, and must be sent as
    /// [`Template::checked_copy`] says.
    pub const fn is_checked_copy(&self) -> bool {
        self.copy.is_some()
    }

    /// A COPY into a sharded table, with the condition that all rows have the key
    /// by which it was located.
    pub fn checked_copy(
        &self,
        text: &[u8],
        map: &Map,
        declared: Option<&Declared>,
    ) -> Option<Vec<u8>> {
        self.copy.as_ref()?.apply(text, self.hint(), declared, map)
    }

    fn hint(&self) -> Option<&Hint> {
        match &self.plan {
            Plan::Keyed(keyed) => keyed.hint.as_ref(),
            Plan::Fixed { .. } | Plan::Marked(_) | Plan::Refused(_) => None,
        }
    }

    /// Zero-based indexes of the parameters that [`Template::locate`] reads.
    pub fn key_params(&self) -> &[u16] {
        &self.key_params
    }

    /// What [`Template::locate`] needs besides the text.
    pub fn needs(&self) -> Needs {
        if self.key_params.is_empty() { Needs::Nothing } else { Needs::Params }
    }

    /// Where the text goes.
    ///
    /// `text` and `literals` are those of the text that was planned or, for a
    /// prepared statement, of the text that was prepared. `map` must be of the
    /// template's epoch. `declared` is what the session has set. Does not
    /// allocate unless a key has escapes.
    ///
    /// # Errors
    /// The values name no shard or several. Nothing may be sent.
    #[inline]
    pub fn locate(
        &self,
        text: &[u8],
        literals: &Literals,
        params: Option<&dyn Params>,
        map: &Map,
        declared: Option<&Declared>,
    ) -> Result<Route, RouteError> {
        match (&self.plan, declared) {
            (Plan::Fixed { targets, reason }, None) => {
                let (targets, touched) = (targets.copied(), Touched::NONE);
                Ok(Route { targets, reason: *reason, mark: Mark::Shard, touched })
            }
            (Plan::Keyed(keyed), None) if self.copy.is_none() && self.own.is_none() => {
                let values = locate::Values { text, literals, params };
                match super::direct::route(keyed, values, map) {
                    Some(route) => Ok(self.widened(route)),
                    None => self.locate_at_length(text, literals, params, map, declared),
                }
            }
            (Plan::Fixed { .. } | Plan::Keyed(_) | Plan::Marked(_) | Plan::Refused(_), _) => {
                self.locate_at_length(text, literals, params, map, declared)
            }
        }
    }

    /// `route` with the mark of the whole shard, unless the catalogs prove that
    /// its keys' rows are all that it touches.
    #[inline]
    fn widened(&self, mut route: Route) -> Route {
        let stays = match self.access {
            Access::Write => self.writes_stay,
            Access::Read => self.reads_stay,
        };
        if !stays {
            route.mark = Mark::Shard;
        }
        route
    }

    /// The only place there is, and the keys' slots where the values name them.
    fn marked(&self, keyed: &Keyed, values: locate::Values<'_>, map: &Map) -> Route {
        let found = super::direct::route(keyed, values, map)
            .or_else(|| locate::route(keyed, values, map).ok());
        let mark = found.map_or(Mark::Shard, |route| route.mark);
        let (targets, reason, touched) = (Targets::Home, Reason::Unsharded, Touched::NONE);
        self.widened(Route { targets, reason, mark, touched })
    }

    #[inline(never)]
    fn locate_at_length(
        &self,
        text: &[u8],
        literals: &Literals,
        params: Option<&dyn Params>,
        map: &Map,
        declared: Option<&Declared>,
    ) -> Result<Route, RouteError> {
        match &self.plan {
            Plan::Fixed { targets, reason } => {
                if let Some(declared) = declared
                    && let Some(route) = declared::without_key(targets, *reason, map, declared)?
                {
                    return Ok(route);
                }
                let (targets, touched) = (targets.clone(), Touched::NONE);
                Ok(Route { targets, reason: *reason, mark: Mark::Shard, touched })
            }
            Plan::Refused(error) => Err(error.clone()),
            Plan::Marked(keyed) => {
                let (text, literals) = match &self.own {
                    Some(own) => (&*own.text, &own.literals),
                    None => (text, literals),
                };
                Ok(self.marked(keyed, locate::Values { text, literals, params }, map))
            }
            Plan::Keyed(keyed) => {
                let (text, literals) = match &self.own {
                    Some(own) => (&*own.text, &own.literals),
                    None => (text, literals),
                };
                let values = locate::Values { text, literals, params };
                let route = match declared.filter(|_| keyed.hint.is_none()) {
                    Some(declared) => match declared::route(keyed, values, map, declared)? {
                        Some(route) => route,
                        None => locate::route(keyed, values, map)?,
                    },
                    None => locate::route(keyed, values, map)?,
                };
                if let Some(copy) = &self.copy
                    && copy.key(self.hint(), declared, map)?.is_none()
                {
                    // A shard is declared, and no key.
                    return Err(RouteError::unsupported(
                        "COPY into a sharded table without a declared key",
                        "SET keyway.key to the one key of all rows, or insert the rows with INSERT",
                    ));
                }
                Ok(self.widened(route))
            }
        }
    }

    /// Bytes that a cache should count for it.
    pub(crate) fn weight(&self) -> usize {
        let sources = match &self.plan {
            Plan::Keyed(keyed) => weigh(keyed),
            Plan::Marked(keyed) => size_of::<Keyed>() + weigh(keyed),
            Plan::Fixed { .. } | Plan::Refused(_) => 0,
        };
        let own = self.own.as_ref().map_or(0, |own| own.text.len() + own.literals.len() * 12);
        TEMPLATE_BYTES + self.statements.len() * STATEMENT_BYTES + own + sources
    }
}

/// Bytes of what a plan's key is read from.
fn weigh(keyed: &Keyed) -> usize {
    let values = keyed.sources.iter().map(|source| 1 + source.parts.len());
    values.sum::<usize>() * size_of::<KeySource>()
}

/// A fair guess of a template's own size.
const TEMPLATE_BYTES: usize = 256;
const STATEMENT_BYTES: usize = 128;
