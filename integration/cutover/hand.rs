//! A move of tenant 42 by hand: the fences, the copy and the order of the steps
//! are those of a real one; the copy is made in the pause.

use std::cell::Cell;
use std::rc::Rc;
use std::time::Duration;

use keyway::engine::Drained;
use keyway::shardmap::Phase;

use crate::stage::{Stage, owner_of};

/// The fences of one move, and which shard is open.
pub(crate) struct Hand {
    stage: Rc<Stage>,
    id: u32,
    source: Cell<u16>,
}

impl Hand {
    /// Installs the fences: open where the tenant is, closed elsewhere.
    pub(crate) async fn new(stage: &Rc<Stage>, id: u32) -> Self {
        let source = owner_of(&stage.map(), TENANT);
        let hand = Self { stage: Rc::clone(stage), id, source: Cell::new(source) };
        for shard in [1, 2] {
            let state = if shard == source { OPEN } else { FENCED };
            stage.superuser(shard, &hand.fence_sql(state)).await;
        }
        hand
    }

    fn fence_sql(&self, state: u8) -> String {
        let id = self.id;
        let fence = format!("keyway.fence_{id}");
        let trigger = |letter: &str, event: &str, when: &str| {
            format!(
                "CREATE TRIGGER \"~keyway_{id}_{letter}\" BEFORE {event} ON counters FOR EACH ROW \
                 WHEN ({when}) EXECUTE FUNCTION {fence}();"
            )
        };
        format!(
            "CREATE SCHEMA IF NOT EXISTS keyway; GRANT USAGE ON SCHEMA keyway TO PUBLIC; \
             CREATE SEQUENCE {fence} AS int MINVALUE 1 MAXVALUE 9; SELECT setval('{fence}', {state}); \
             GRANT SELECT ON {fence} TO PUBLIC; \
             CREATE FUNCTION {fence}() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN \
             IF NOT pg_catalog.pg_try_advisory_xact_lock_shared(1263098711, {id}) \
             OR pg_catalog.pg_sequence_last_value('{fence}'::pg_catalog.regclass) \
             IS DISTINCT FROM 1 THEN RAISE EXCEPTION USING errcode = 'KW001', \
             message = 'keyway: tenant is being moved', detail = 'move={id}'; END IF; \
             IF tg_op = 'DELETE' THEN RETURN old; END IF; RETURN new; END $$; {}{}{}",
            trigger("i", "INSERT", &format!("new.tenant_id = {TENANT}")),
            trigger("d", "DELETE", &format!("old.tenant_id = {TENANT}")),
            trigger(
                "u",
                "UPDATE",
                &format!("old.tenant_id = {TENANT} AND new.tenant_id = {TENANT}")
            ),
        )
    }

    /// Moves the tenant to the other shard.
    pub(crate) async fn carry_out(&self, round: u32) {
        let (stage, source) = (&self.stage, self.source.get());
        let target = 3 - source;
        let moving = |phase| stage.moving_from(self.id, TENANT, source, phase);
        stage.set(&[moving(Phase::Watched)]).await;
        stage.set(&[moving(Phase::Held)]).await;
        let drained = stage.drained(self.id, Duration::from_secs(10)).await;
        assert_eq!(drained, Drained::Clear, "round {round}");
        self.fence().await;
        self.copy(source, target).await;
        stage.give(TENANT, target).await;
        self.set_state(target, OPEN).await;
        stage.set(&[moving(Phase::Switched)]).await;
        let drained = stage.drained(self.id, Duration::from_secs(10)).await;
        assert_eq!(drained, Drained::Clear, "round {round}: nobody reads at the source");
        let delete = format!("DELETE FROM counters WHERE tenant_id = {TENANT}");
        stage.superuser(source, &format!("SET session_replication_role = replica; {delete}")).await;
        stage.set(&[]).await;
        self.source.set(target);
    }

    /// Closes the source: waits for who writes, then sets the state.
    pub(crate) async fn fence(&self) {
        let lock = format!(
            "SET lock_timeout = '10s'; SELECT pg_advisory_xact_lock(1263098711, {}); \
             SELECT setval('keyway.fence_{}', {FENCED})",
            self.id, self.id
        );
        self.stage.superuser(self.source.get(), &lock).await;
    }

    /// Opens the source again.
    pub(crate) async fn unfence(&self) {
        self.set_state(self.source.get(), OPEN).await;
    }

    async fn set_state(&self, shard: u16, state: u8) {
        let sql = format!("SELECT setval('keyway.fence_{}', {state})", self.id);
        self.stage.superuser(shard, &sql).await;
    }

    async fn copy(&self, source: u16, target: u16) {
        let rows = format!("SELECT json_agg(c) FROM counters c WHERE tenant_id = {TENANT}");
        let rows = self.stage.superuser(source, &rows).await;
        let insert = format!(
            "SET session_replication_role = replica; INSERT INTO counters \
             SELECT * FROM json_populate_recordset(NULL::counters, '{}')",
            rows.trim()
        );
        self.stage.superuser(target, &insert).await;
    }

    /// Removes the fences.
    pub(crate) async fn remove(&self) {
        for shard in [1, 2] {
            self.stage
                .superuser(shard, "SET client_min_messages = warning; DROP SCHEMA keyway CASCADE")
                .await;
        }
    }
}

/// The tenant that moves.
const TENANT: i64 = 42;
const OPEN: u8 = 1;
const FENCED: u8 = 2;
