//! Prepared statements: a client's names, and the texts that the thread shares.
//!
//! A text has one number per thread, whichever client prepared it; its
//! identity is everything that changes its meaning: the text itself, the
//! parameter types, search_path and role. Comparing it all costs nothing,
//! because it happens at Parse alone.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::hash::{BuildHasher, Hasher, RandomState};
use std::rc::Rc;

use xxhash_rust::xxh3::xxh3_64_with_seed;

use crate::backend::{RowShape, Setting, SettingsSet, StatementId};
use crate::protocol::frontend::Parse;
use crate::route::Template;
use crate::sql::literal::Literals;

/// A statement text with its number, shared by all clients of the thread.
pub struct Prepared {
    /// The number that makes its name on backends.
    pub id: StatementId,
    /// The text; for one made by SQL's PREPARE, the whole PREPARE under the
    /// backends' name.
    pub text: Box<[u8]>,
    /// The statement itself, where `text` is another: what stands behind the
    /// AS of a PREPARE, or what the client wrote where the router rewrote it.
    inner: Option<Box<[u8]>>,
    /// Parameter types as Parse carries them.
    pub raw_types: Box<[u8]>,
    /// The text's constants.
    pub literals: Literals,
    /// How it is prepared on a backend.
    pub origin: Origin,
    /// A server has taken it once: the next client that prepares it need not
    /// ask one.
    taken: Cell<bool>,
    /// Its route template and the serial of the map that it was made under.
    template: RefCell<(u64, Rc<Template>)>,
}

/// How a statement came to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Origin {
    /// A Parse message.
    Parse,
    /// SQL's PREPARE.
    Sql,
}

impl Prepared {
    /// The statement that its execution runs.
    pub fn statement(&self) -> &[u8] {
        self.inner.as_deref().unwrap_or(&self.text)
    }

    /// The template, if it was made under the map with this serial.
    pub fn template(&self, serial: u64) -> Option<Rc<Template>> {
        let slot = self.template.borrow();
        (slot.0 == serial).then(|| Rc::clone(&slot.1))
    }

    /// A server has taken it.
    pub fn note_taken(&self) {
        self.taken.set(true);
    }

    /// Keeps a template that was made under the map with this serial.
    pub fn set_template(&self, serial: u64, template: Rc<Template>) {
        *self.template.borrow_mut() = (serial, template);
    }
}

#[derive(PartialEq, Eq, Hash)]
struct Identity {
    text: Box<[u8]>,
    raw_types: Box<[u8]>,
    origin: Origin,
    context: Box<str>,
}

/// The thread's statement texts; those that no client has any more are thrown
/// out when there are too many.
#[derive(Default)]
pub struct StatementRegistry {
    known: HashMap<Identity, Rc<Prepared>>,
    newest: u64,
    schema_changes: u64,
}

impl StatementRegistry {
    /// How often a schema has changed by a statement of the thread's clients.
    pub const fn schema_changes(&self) -> u64 {
        self.schema_changes
    }

    /// The shared statement of a Parse message under these settings; `inner`
    /// is what the client wrote, if that is not the message's text.
    pub fn intern(
        &mut self,
        parse: &Parse<'_>,
        inner: Option<&[u8]>,
        settings: &SettingsSet,
        template: (u64, Rc<Template>),
        literals: Literals,
    ) -> Rc<Prepared> {
        let identity = Identity {
            text: parse.query.into(),
            raw_types: parse.raw_types().into(),
            origin: Origin::Parse,
            context: context_of(settings),
        };
        self.find_or_add(identity, template, literals, |_| {
            (parse.query.into(), inner.map(Into::into))
        })
    }

    /// True if a server has taken the same statement under the same settings.
    pub fn is_taken(&self, parse: &Parse<'_>, settings: &SettingsSet) -> bool {
        let identity = Identity {
            text: parse.query.into(),
            raw_types: parse.raw_types().into(),
            origin: Origin::Parse,
            context: context_of(settings),
        };
        self.known.get(&identity).is_some_and(|shared| shared.taken.get())
    }

    /// The shared statement of a PREPARE in SQL: `text` with the name spliced
    /// in between `head` and `tail`, and what stands behind its AS.
    pub fn intern_sql(
        &mut self,
        (head, tail): (&[u8], &[u8]),
        inner: &[u8],
        settings: &SettingsSet,
        template: (u64, Rc<Template>),
        literals: Literals,
    ) -> Rc<Prepared> {
        let identity = Identity {
            text: [head, b"\0", tail].concat().into(),
            raw_types: Box::default(),
            origin: Origin::Sql,
            context: context_of(settings),
        };
        self.find_or_add(identity, template, literals, |id| {
            let mut buffer = [0; crate::backend::NAME_LEN];
            let name = crate::backend::backend_name(id, &mut buffer);
            ([head, name, tail].concat().into(), Some(inner.into()))
        })
    }

    fn find_or_add(
        &mut self,
        identity: Identity,
        template: (u64, Rc<Template>),
        literals: Literals,
        texts: impl FnOnce(StatementId) -> (Box<[u8]>, Option<Box<[u8]>>),
    ) -> Rc<Prepared> {
        if let Some(shared) = self.known.get(&identity) {
            return Rc::clone(shared);
        }
        if self.known.len() >= TEXTS_MAX {
            self.known.retain(|_, shared| Rc::strong_count(shared) > 1);
        }
        self.newest += 1;
        let id = StatementId::new(self.newest);
        let (text, inner) = texts(id);
        let shared = Rc::new(Prepared {
            id,
            text,
            inner,
            raw_types: identity.raw_types.clone(),
            literals,
            taken: Cell::new(false),
            origin: identity.origin,
            template: RefCell::new(template),
        });
        self.known.insert(identity, Rc::clone(&shared));
        shared
    }

    /// The schema has changed: whoever prepares a text from now on gets a new
    /// number, and with it a plan and a shape of its own. Names that clients
    /// have keep theirs, as on a server.
    pub fn retire_all(&mut self) {
        self.known.clear();
        self.schema_changes += 1;
    }

    /// The same for one statement, whose plan turned out stale.
    pub fn retire(&mut self, id: StatementId) {
        self.known.retain(|_, shared| shared.id != id);
    }

    /// A number for an unnamed statement; never one of a shared text.
    pub fn number(&mut self) -> StatementId {
        self.newest += 1;
        StatementId::new(self.newest)
    }
}

/// The settings that change what a text means.
fn context_of(settings: &SettingsSet) -> Box<str> {
    let mut context = String::new();
    for (name, value) in settings.iter() {
        if matches!(name, "search_path" | "role" | "session_authorization") {
            let (Setting::Flat(text) | Setting::Statement(text)) = value;
            context.push_str(name);
            context.push('=');
            context.push_str(text);
            context.push('\0');
        }
    }
    context.into()
}

/// One client's names.
#[derive(Default)]
pub(super) struct Statements {
    names: HashMap<Box<[u8]>, Rc<Prepared>, NameHashes>,
    /// The shapes of those that the client has described.
    told: HashMap<StatementId, RowShape>,
}

/// Hashes of names, which are short and looked up with every Bind. The seed
/// keeps a client from choosing names that collide.
#[derive(Clone, Copy)]
struct NameHashes(u64);

impl Default for NameHashes {
    fn default() -> Self {
        Self(RandomState::new().hash_one(0))
    }
}

impl BuildHasher for NameHashes {
    type Hasher = NameHasher;

    fn build_hasher(&self) -> NameHasher {
        NameHasher(self.0)
    }
}

struct NameHasher(u64);

impl Hasher for NameHasher {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        self.0 = xxh3_64_with_seed(bytes, self.0);
    }

    fn write_usize(&mut self, length: usize) {
        self.0 ^= u64::try_from(length).unwrap_or(u64::MAX);
    }
}

impl Statements {
    /// The statement that the client calls `name`.
    pub(super) fn find(&self, name: &[u8]) -> Option<&Rc<Prepared>> {
        self.names.get(name)
    }

    /// Notes a name.
    pub(super) fn insert(&mut self, name: &[u8], prepared: Rc<Prepared>) {
        // What was told of it before is of another time.
        self.told.remove(&prepared.id);
        self.names.insert(name.into(), prepared);
    }

    /// Forgets a name; what it meant.
    pub(super) fn take(&mut self, name: &[u8]) -> Option<Rc<Prepared>> {
        self.names.remove(name)
    }

    /// Forgets a name; true if there was one.
    pub(super) fn remove(&mut self, name: &[u8]) -> bool {
        self.names.remove(name).is_some()
    }

    /// The client has been told this shape.
    pub(super) fn tell(&mut self, id: StatementId, shape: RowShape, max: usize) {
        if self.told.len() >= max {
            self.told.clear();
        }
        self.told.insert(id, shape);
    }

    /// The shape that the client has been told.
    pub(super) fn told(&self, id: StatementId) -> Option<RowShape> {
        self.told.get(&id).copied()
    }

    /// Forgets all.
    pub(super) fn clear(&mut self) {
        self.names.clear();
        self.told.clear();
    }

    /// How many names there are.
    pub(super) fn len(&self) -> usize {
        self.names.len()
    }
}

/// A client's unnamed statement: one text, replaced by every unnamed Parse,
/// gone with the next simple query. Its buffers are used again.
#[derive(Default)]
pub(super) struct Unnamed {
    /// Its number, while there is one.
    pub id: Option<StatementId>,
    /// The text.
    pub text: Vec<u8>,
    /// Parameter types as Parse carries them.
    pub raw_types: Vec<u8>,
    /// The text's constants.
    pub literals: Literals,
    /// Its route template and the map's serial.
    pub template: Option<(u64, Rc<Template>)>,
}

impl Unnamed {
    /// Takes the place of the one before.
    pub(super) fn replace(
        &mut self,
        id: StatementId,
        parse: &Parse<'_>,
        template: (u64, Rc<Template>),
        literals: &Literals,
    ) {
        self.literals.clone_from(literals);
        self.id = Some(id);
        self.text.clear();
        self.text.extend_from_slice(parse.query);
        self.raw_types.clear();
        self.raw_types.extend_from_slice(parse.raw_types());
        self.template = Some(template);
    }

    /// There is none any more; a large text gives its memory back.
    #[inline]
    pub(super) fn forget(&mut self) {
        if self.id.is_some() || self.template.is_some() || self.text.capacity() > KEPT_TEXT_MAX {
            self.forget_all();
        }
    }

    fn forget_all(&mut self) {
        self.id = None;
        self.template = None;
        if self.text.capacity() > KEPT_TEXT_MAX {
            self.text = Vec::new();
        }
    }
}

/// Shared texts kept before those that no client has are thrown out.
const TEXTS_MAX: usize = 10_000;
/// Capacity that an unnamed statement's buffer keeps, in bytes.
const KEPT_TEXT_MAX: usize = 4096;
