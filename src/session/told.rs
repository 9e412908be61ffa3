//! What the client has been told of its statements' rows, against what a backend
//! makes of them that prepares them anew.
//!
//! A server answers a statement whose rows have changed their shape with an
//! error for as long as the client keeps its name. Prepared anew on another
//! backend it would just have the new shape, and the client would read it as
//! the old one. So where the client has described a statement, the router
//! describes it too when it prepares it for a Bind, and waits.
//!
//! Source: hazard 37 of `docs/hazards.md`.

use crate::backend::{Backend, Expect, NAME_LEN, REVALIDATE, RowShape, StatementId, backend_name};
use crate::protocol::encode;
use crate::protocol::frontend::Target;

use super::feed::Feed;
use super::refusal::{NOT_SUPPORTED, Refused};
use super::statements::{Origin, Prepared, StatementRegistry};
use super::{Session, Step};

impl Feed<'_, '_> {
    /// Makes sure that the backend has a statement that is about to be bound.
    /// `Some`: its shape has to be known first, then the Bind is fed again.
    pub(super) fn prepare_for_bind(&mut self, prepared: &Prepared) -> Option<Step> {
        if self.backend().is_some_and(|backend| backend.has_prepared(prepared.id)) {
            return None;
        }
        self.prepare_anew(prepared)
    }

    #[cold]
    fn prepare_anew(&mut self, prepared: &Prepared) -> Option<Step> {
        self.send_own_preparation(prepared);
        if prepared.origin != Origin::Parse || self.s.statements.told(prepared.id).is_none() {
            return None;
        }
        let mut buffer = [0; NAME_LEN];
        let name = backend_name(prepared.id, &mut buffer);
        self.inject(|out| encode::describe(out, Target::Statement, name));
        if let Some(backend) = self.backend() {
            backend.push(Expect::OwnDescribe(prepared.id));
        }
        Some(self.settle())
    }
}

impl Session {
    /// The client has described a statement.
    pub(super) fn note_told(&mut self, id: StatementId, shape: RowShape) {
        self.statements.tell(id, shape, self.limits.statements_max);
    }

    /// A backend has prepared a statement that the client has described before.
    pub(super) fn on_shape(
        &mut self,
        id: StatementId,
        shape: RowShape,
        backend: &mut Backend,
        registry: &mut StatementRegistry,
    ) {
        if self.statements.told(id).is_none_or(|told| told == shape) {
            return;
        }
        // As long as the client keeps the name it fails, as on a server: the
        // next Bind has it prepared, and looked at, again.
        backend.note_stale(id);
        registry.retire(id);
        let mut refused = Refused::new(NOT_SUPPORTED, "cached plan must not change result type");
        // By this, not by its words, drivers know that they have to prepare anew.
        refused.routine = Some(REVALIDATE);
        self.pending.refuse(refused);
    }
}
