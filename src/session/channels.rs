//! The channels that a session listens to over a connection that it shares.
//!
//! LISTEN and UNLISTEN are answered by the router: no backend is held for them.
//! They take effect with their transaction, as on a server; before a LISTEN is
//! answered the shell has the shared connection listen, so that nothing is
//! missed from the commit on.
//!
//! Source: PostgreSQL manual, LISTEN, NOTIFY.

use std::collections::BTreeSet;

use crate::route::Template;
use crate::sql::statement::SessionEffect;

use super::answer::LocalStatement;
use super::effects::Effect;
use super::feed::Feed;
use super::refusal::{LIMIT_EXCEEDED, Refused};
use super::{Holds, Session, Step, Tx};

/// A session's channels.
#[derive(Debug, Default)]
pub(super) struct Channels {
    /// Those that it listens to.
    heard: BTreeSet<Box<str>>,
    /// Those that the shared connection listens to for it.
    shared: BTreeSet<Box<str>>,
    /// Those that it is to listen to first.
    asked: Vec<Box<str>>,
    /// What is shared may be more than what is heard.
    unsettled: bool,
    /// The shell has not been told of the last change.
    changed: bool,
}

impl Channels {
    /// A LISTEN or UNLISTEN has taken effect.
    pub(super) fn apply(&mut self, effect: Effect) {
        self.changed = true;
        self.unsettled = true;
        match effect {
            Effect::Listen(channel) => {
                self.heard.insert(channel);
            }
            Effect::Unlisten(Some(channel)) => {
                self.heard.remove(&channel);
            }
            Effect::Unlisten(None) => self.heard.clear(),
            Effect::Own(_)
            | Effect::Path(_)
            | Effect::Role(_)
            | Effect::Set(..)
            | Effect::Restore(_)
            | Effect::RestoreAll
            | Effect::Reset(_)
            | Effect::Savepoint(_)
            | Effect::Release(_)
            | Effect::RollbackTo(_)
            | Effect::Prepare(..)
            | Effect::Discarded
            | Effect::DiscardedTo(_)
            | Effect::Deallocated
            | Effect::SchemaChanged => {}
        }
    }

    /// The transaction is over: what was asked for and not committed is not
    /// needed any more.
    #[inline]
    pub(super) fn settle(&mut self) {
        if self.unsettled {
            self.settle_now();
        }
    }

    #[cold]
    fn settle_now(&mut self) {
        if std::mem::take(&mut self.unsettled) && self.shared != self.heard {
            self.shared.clone_from(&self.heard);
            self.changed = true;
        }
    }

    /// UNLISTEN * at once.
    pub(super) fn clear(&mut self) {
        if !self.heard.is_empty() || !self.shared.is_empty() {
            self.heard.clear();
            self.shared.clear();
            self.changed = true;
        }
    }
}

impl Session {
    /// The channels that [`Step::Listen`] asks for.
    pub fn asked_channels(&self) -> &[Box<str>] {
        &self.channels.asked
    }

    /// The shared connection listens to the channels that were asked for.
    pub fn note_listening(&mut self) {
        self.channels.unsettled = true;
        self.channels.shared.extend(self.channels.asked.drain(..));
    }

    /// True while a COMMIT is under way that makes the session listen to more.
    pub fn is_committing_channels(&self) -> bool {
        self.commit_sent && self.unit_open && self.log.brings_channels()
    }

    /// True if [`Session::take_changed_channels`] has news.
    pub const fn has_changed_channels(&self) -> bool {
        self.channels.changed
    }

    /// The channels that the session listens to now, if that has changed since
    /// the last call.
    pub fn take_changed_channels(&mut self) -> Option<&BTreeSet<Box<str>>> {
        std::mem::take(&mut self.channels.changed).then_some(&self.channels.heard)
    }
}

impl Feed<'_, '_> {
    /// True if a LISTEN or UNLISTEN is the router's to answer. Where the session
    /// has a backend for life, or already listens on one, it is that backend's;
    /// and while replies are owed nobody knows yet what it belongs to.
    pub(super) fn shares_channels(&self) -> bool {
        !self.s.holds.contains(Holds::SESSION)
            && !self.s.holds.contains(Holds::LISTEN)
            && self.env.backend.as_ref().is_none_or(|(backend, _)| backend.owes_nothing())
    }

    /// Has the shell listen first, if `template` names a channel that the shared
    /// connection does not listen to yet.
    pub(super) fn listen_first(&mut self, template: &Template) -> Result<Option<Step>, Refused> {
        if self.is_backend_failed() || self.refuse_in_failed().is_some() {
            return Ok(None);
        }
        let channels = &mut self.s.channels;
        let mut asked = Vec::new();
        for facts in template.statements() {
            for effect in facts.effect.each() {
                if let SessionEffect::Listen { channel } = effect
                    && !channels.shared.contains(channel)
                {
                    asked.push(channel.clone());
                }
            }
        }
        if asked.is_empty() {
            return Ok(None);
        }
        if channels.shared.len() + asked.len() > CHANNELS_MAX {
            return Err(Refused::new(
                LIMIT_EXCEEDED,
                format!("a client may listen to {CHANNELS_MAX} channels at most"),
            )
            .hint("listen to fewer channels, and tell what is meant in the payload"));
        }
        channels.asked = asked;
        Ok(Some(Step::Listen))
    }

    /// Answers a simple query that ends at `end`, once its channels are listened
    /// to.
    pub(super) fn listen_and_answer(
        &mut self,
        text: &[u8],
        template: &Template,
        end: usize,
    ) -> Option<Step> {
        match self.listen_first(template) {
            Ok(None) => self.answer_query(text, template, end),
            Ok(step) => step,
            Err(refused) => self.refuse_simple(&refused, end),
        }
    }

    /// The same for an Execute that ends at `end`.
    pub(super) fn listen_in_batch(
        &mut self,
        local: &LocalStatement,
        end: usize,
    ) -> Option<Option<Step>> {
        match self.listen_first(local.template()) {
            Ok(None) => None,
            Ok(step) => Some(step),
            Err(refused) => Some(self.refuse_message(&refused, end)),
        }
    }

    /// LISTEN or UNLISTEN succeeds: now, or with the transaction that it
    /// stands in.
    pub(super) fn note_channel(&mut self, effect: Effect) {
        if let Tx::Lazy(lazy) = &mut self.s.tx {
            lazy.keep(b"", vec![effect]);
        } else if self.s.unit_open || self.in_backend_transaction() {
            self.s.log.push(effect);
        } else {
            self.s.channels.apply(effect);
            self.s.channels.settle();
        }
    }
}

/// Most channels of one client.
const CHANNELS_MAX: usize = 1_000;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn channels_follow_listen_and_unlisten() {
        let mut channels = Channels::default();
        for name in ["a", "b"] {
            channels.apply(Effect::Listen(name.into()));
        }
        channels.apply(Effect::Unlisten(Some("a".into())));
        channels.settle();
        assert_eq!(channels.heard, BTreeSet::from(["b".into()]));
        assert_eq!(channels.shared, channels.heard);
        channels.apply(Effect::Unlisten(None));
        assert!(channels.heard.is_empty() && channels.changed);
    }

    #[test]
    fn what_was_asked_for_and_rolled_back_is_given_up() {
        let mut channels = Channels::default();
        channels.shared.insert("a".into());
        channels.unsettled = true;
        channels.settle();
        assert!(channels.shared.is_empty() && channels.changed);
    }
}
