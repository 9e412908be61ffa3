//! In whose numbers (OIDs) the client knows the database's own types: those of
//! the shard that answers its questions about the catalogs. That is the home
//! shard, or, before a tenant's schema, the tenant's.
//!
//! It does not know what stands in a message: `backend` walks that. What it
//! refuses is a parameter of a type that the statement's shard does not have.
//!
//! Source: docs/catalog.md; hazard 85 of `docs/hazards.md`.

use std::sync::Arc;

use crate::backend::Backend;
use crate::catalog::Translation;
use crate::protocol::encode;
use crate::protocol::frontend::{Bind, Parse, Target};
use crate::route::Template;
use crate::types::{Format, ShardId, SqlState};

use super::feed::Feed;
use super::refusal::Refused;

impl Feed<'_, '_> {
    /// Tells the held backend which numbers the client knows.
    #[cold]
    pub(super) fn note_numbers(&mut self) {
        let Some((_, shard)) = &self.env.backend else { return };
        let shard = *shard;
        let to = if self.knows_tenants_numbers() { None } else { Some(shard) };
        let to = to.and_then(|shard| self.env.catalog.translation(shard));
        if let Some((backend, _)) = &mut self.env.backend {
            backend.set_numbers(to);
        }
    }

    /// From the numbers of each of `shards` to those that the client knows.
    pub(super) fn numbers_of(
        &self,
        shards: impl Iterator<Item = ShardId>,
    ) -> Vec<(ShardId, Arc<Translation>)> {
        if !self.env.catalog.translates() || self.knows_tenants_numbers() {
            return Vec::new();
        }
        let of = |shard| Some((shard, Arc::clone(self.env.catalog.translation(shard)?)));
        shards.filter_map(of).collect()
    }

    /// Whether the catalogs that the client sees are a tenant's shard's.
    fn knows_tenants_numbers(&self) -> bool {
        let map = self.map();
        let of_tenant = |schema: &str| map.tenant_shard(schema).is_some();
        map.has_tenant_schemas()
            && (self.s.own.declared().is_some() || self.s.search_path.schemas().any(of_tenant))
    }

    /// Whether home answers what a transaction of another shard asks about
    /// schemas, because the client knows types by home's numbers. Of temporary
    /// tables only their shard knows.
    pub(super) fn asks_home(&self, template: &Template) -> bool {
        self.env.catalog.translates()
            && template.asks_schemas()
            && self.in_backend_transaction()
            && !self.knows_tenants_numbers()
            && !self.s.kept.has_temporary()
    }

    /// A parameter is declared of a type that the held backend's shard does not
    /// have, as far as is known.
    pub(super) fn refuse_types(&self, parse: &Parse<'_>) -> Option<Refused> {
        let (backend, _) = self.env.backend.as_ref()?;
        let (index, oid) = backend.missing_type(parse.raw_types())?;
        let refused = Refused::new(
            UNDEFINED_OBJECT,
            format!(
                "parameter ${} is of a type (OID {}) that the statement's shard is not known to have",
                index + 1,
                oid.number()
            ),
        );
        Some(refused.hint(
            "a type made a moment ago is known within a second; make it on all shards, or leave the parameter's type to the server",
        ))
    }

    /// A Bind of this statement goes to a backend that translates.
    #[cold]
    pub(super) fn note_bound(
        &mut self,
        body: &[u8],
        statement: Option<crate::backend::StatementId>,
    ) {
        // One that can't be read is the server's to refuse.
        let Ok(bind) = Bind::decode(body) else { return };
        let formats = bind.result_formats();
        let count = formats.count();
        let binary = (0..count).any(|at| formats.of(at, count) == Some(Format::Binary));
        if binary && let Some(backend) = self.backend() {
            backend.note_binary_portal(statement.filter(|_| bind.portal().is_empty()));
        }
    }

    /// Has the portal described that is executed next, if numbers may stand in
    /// its rows.
    #[inline]
    pub(super) fn ask_portals_columns(&mut self, portal: &[u8]) {
        if self.env.backend.as_ref().is_some_and(|(backend, _)| backend.wants_columns()) {
            self.describe_for_numbers(portal);
        }
    }

    #[cold]
    fn describe_for_numbers(&mut self, portal: &[u8]) {
        if self.inject(|out| encode::describe(out, Target::Portal, portal))
            && let Some(backend) = self.backend()
        {
            backend.push(backend.columns_expected(portal));
        }
    }
}

/// The same for the unnamed portal of a backend that takes part in a read over
/// several shards, whose rows have these formats.
pub(super) fn ask_columns_of_bound(
    backend: &mut Backend,
    formats: &[u8],
    to_backend: &mut Vec<u8>,
) {
    let (_, codes) = formats.split_at_checked(2).unwrap_or_default();
    if !backend.translates() || codes.iter().all(|byte| *byte == 0) {
        return;
    }
    backend.note_binary_portal(None);
    if encode::describe(to_backend, Target::Portal, b"").is_ok() {
        backend.push(backend.columns_expected(b""));
    }
}

/// `undefined_object`
const UNDEFINED_OBJECT: SqlState = SqlState::new("42704");
