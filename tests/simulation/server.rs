//! A small model of a Postgres server process: simple and extended protocol,
//! transactions with savepoints, prepared statements, portals with row limits,
//! settings with their reports, COPY both ways, notices and stale plans.
//!
//! It is the backends behind the router, and the private server beside it that
//! says what each client has to see. It panics where a router does something
//! that would end a real server's connection.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;

use crate::sql::{self, Statement};

pub(crate) type Settings = BTreeMap<String, String>;

/// What all processes of one server share.
#[derive(Default)]
pub(crate) struct Tables {
    pub(crate) rows: BTreeMap<String, Vec<String>>,
    pub(crate) columns: BTreeMap<String, usize>,
}

/// An error with its SQLSTATE.
pub(crate) struct Fail(pub(crate) &'static str, pub(crate) String);

pub(crate) type Done<T> = Result<T, Fail>;

pub(crate) struct Transaction {
    pub(crate) explicit: bool,
    pub(crate) failed: bool,
    /// Tables as they were before each change.
    pub(crate) undo: Vec<(String, Vec<String>)>,
    pub(crate) before: (Settings, Settings),
    pub(crate) savepoints: Vec<(String, usize, (Settings, Settings))>,
}

#[derive(Clone)]
pub(crate) struct Prepared {
    pub(crate) statement: Option<Statement>,
    /// Columns of its table when it was prepared, if it takes them all.
    pub(crate) columns: usize,
}

pub(crate) struct Portal {
    pub(crate) statement: Option<Statement>,
    pub(crate) argument: Option<String>,
    /// Rows not fetched yet, once it runs.
    pub(crate) rows: Option<Vec<Vec<String>>>,
    pub(crate) done: bool,
}

pub(crate) struct Copying {
    pub(crate) table: String,
    pub(crate) text: Vec<u8>,
    /// What the query string has behind it; `None` in a batch.
    pub(crate) rest: Option<Vec<Statement>>,
}

/// One process.
pub(crate) struct Server {
    pub(crate) tables: Rc<RefCell<Tables>>,
    pub(crate) reset: Settings,
    pub(crate) session: Settings,
    pub(crate) local: Settings,
    pub(crate) reported: Settings,
    pub(crate) tx: Option<Transaction>,
    pub(crate) prepared: BTreeMap<Vec<u8>, Prepared>,
    pub(crate) portals: BTreeMap<Vec<u8>, Portal>,
    pub(crate) skipping: bool,
    pub(crate) copying: Option<Copying>,
    pub(crate) input: Vec<u8>,
    pub(crate) out: Vec<u8>,
    pub(crate) closed: bool,
}

pub(crate) struct Reply {
    pub(crate) columns: Vec<String>,
    pub(crate) rows: Vec<Vec<String>>,
    pub(crate) tag: String,
}

impl Reply {
    pub(crate) fn tag(tag: &str) -> Self {
        Self { columns: Vec::new(), rows: Vec::new(), tag: tag.to_owned() }
    }

    pub(crate) fn rows(columns: Vec<String>, rows: Vec<Vec<String>>) -> Self {
        let tag = format!("SELECT {}", rows.len());
        Self { columns, rows, tag }
    }
}

impl Server {
    /// A process whose client gave these settings at startup.
    pub(crate) fn new(tables: &Rc<RefCell<Tables>>, startup: &[(&str, &str)]) -> Self {
        let mut reset: Settings =
            DEFAULTS.iter().map(|(n, v)| ((*n).to_owned(), (*v).to_owned())).collect();
        reset.extend(startup.iter().map(|(n, v)| ((*n).to_owned(), (*v).to_owned())));
        Self {
            tables: Rc::clone(tables),
            session: reset.clone(),
            reported: reset.clone(),
            reset,
            local: Settings::new(),
            tx: None,
            prepared: BTreeMap::new(),
            portals: BTreeMap::new(),
            skipping: false,
            copying: None,
            input: Vec::new(),
            out: Vec::new(),
            closed: false,
        }
    }

    /// Bytes come; replies go to `out`.
    pub(crate) fn receive(&mut self, bytes: &[u8]) {
        self.input.extend_from_slice(bytes);
        while !self.closed && self.input.len() >= 5 {
            let length = u32::from_be_bytes(self.input[1..5].try_into().unwrap()) as usize;
            if self.input.len() < length + 1 {
                break;
            }
            let frame: Vec<u8> = self.input.drain(..=length).collect();
            self.on_message(frame[0], &frame[5..]);
        }
    }

    /// The connection is gone.
    pub(crate) fn hang_up(&mut self) {
        self.end(false);
        self.closed = true;
    }

    /// Why the process may not be given to another client; `None` if it may.
    pub(crate) fn unclean(&self) -> Option<String> {
        if let Some(tx) = &self.tx {
            return Some(format!("a transaction is open (explicit: {})", tx.explicit));
        }
        if self.copying.is_some() || self.skipping {
            return Some("a COPY or a failed batch is open".to_owned());
        }
        if !self.input.is_empty() {
            return Some("half a message was sent".to_owned());
        }
        None
    }

    /// Names of prepared statements, without the unnamed one.
    pub(crate) fn names(&self) -> Vec<Vec<u8>> {
        self.prepared.keys().filter(|name| !name.is_empty()).cloned().collect()
    }

    /// Settings that differ from the defaults.
    pub(crate) fn changed(&self) -> Settings {
        let differs = |(n, v): &(&String, &String)| self.reset.get(*n) != Some(*v);
        self.session.iter().filter(differs).map(|(n, v)| (n.clone(), v.clone())).collect()
    }

    fn on_message(&mut self, tag: u8, body: &[u8]) {
        if self.copying.is_some() {
            return self.on_copy(tag, body);
        }
        if self.skipping && !matches!(tag, b'S' | b'X') {
            return;
        }
        match tag {
            b'Q' => {
                let done = match body.split_last() {
                    Some((0, text)) if !text.contains(&0) => self.query(text),
                    _ => Err(malformed()),
                };
                self.end_query(done);
            }
            b'S' => {
                self.skipping = false;
                if !body.is_empty() {
                    self.fail(&malformed());
                } else {
                    self.end_implicit();
                }
                self.ready();
            }
            b'H' => {}
            b'X' => self.hang_up(),
            b'd' | b'c' | b'f' => {}
            b'P' | b'B' | b'D' | b'E' | b'C' => {
                self.start();
                let done = match tag {
                    b'P' => self.parse(body),
                    b'B' => self.bind(body),
                    b'D' => self.describe(body),
                    b'E' => self.execute(body),
                    _ => self.close(body),
                };
                if let Err(fail) = done {
                    self.fail(&fail);
                    self.skipping = true;
                }
            }
            other => panic!("the router sent message {other} to a server"),
        }
    }

    // === transactions ===

    pub(crate) fn start(&mut self) {
        if self.tx.is_none() {
            self.tx = Some(Transaction {
                explicit: false,
                failed: false,
                undo: Vec::new(),
                before: (self.session.clone(), self.local.clone()),
                savepoints: Vec::new(),
            });
        }
    }

    pub(crate) fn is_failed(&self) -> bool {
        self.tx.as_ref().is_some_and(|tx| tx.failed)
    }

    pub(crate) fn is_explicit(&self) -> bool {
        self.tx.as_ref().is_some_and(|tx| tx.explicit)
    }

    pub(crate) fn end(&mut self, commit: bool) {
        if let Some(mut tx) = self.tx.take()
            && !commit
        {
            self.undo(&mut tx.undo, 0);
            self.session = tx.before.0;
        }
        self.local.clear();
        self.portals.clear();
    }

    pub(crate) fn undo(&self, undo: &mut Vec<(String, Vec<String>)>, to: usize) {
        let mut tables = self.tables.borrow_mut();
        for (name, rows) in undo.drain(to..).rev() {
            tables.rows.insert(name, rows);
        }
    }

    fn end_implicit(&mut self) {
        if !self.is_explicit() {
            self.end(true);
        }
    }

    fn fail(&mut self, fail: &Fail) {
        say_error(&mut self.out, b'E', "ERROR", fail);
        match &mut self.tx {
            Some(tx) if tx.explicit => {
                if !tx.failed {
                    let inner = tx.savepoints.last().map_or(&tx.before, |(_, _, before)| before);
                    (self.session, self.local) = inner.clone();
                }
                tx.failed = true;
            }
            _ => self.end(false),
        }
    }

    fn ready(&mut self) {
        for name in REPORTED {
            let now = self.setting(name);
            if self.reported.get(*name) != Some(&now) {
                let shown = if *name == "timezone" { "TimeZone" } else { name };
                frame(&mut self.out, b'S', format!("{shown}\0{now}\0").as_bytes());
                self.reported.insert((*name).to_owned(), now);
            }
        }
        let status = match &self.tx {
            None => b'I',
            Some(tx) if tx.failed => b'E',
            Some(_) => b'T',
        };
        frame(&mut self.out, b'Z', &[status]);
    }

    pub(crate) fn setting(&self, name: &str) -> String {
        self.local.get(name).or_else(|| self.session.get(name)).cloned().unwrap_or_default()
    }

    // === simple protocol ===

    fn query(&mut self, text: &[u8]) -> Done<()> {
        self.prepared.remove(&b""[..]);
        self.portals.remove(&b""[..]);
        let statements = read(text)?;
        if statements.is_empty() {
            frame(&mut self.out, b'I', &[]);
            return Ok(());
        }
        let alone = statements.len() == 1;
        self.run_all(statements, alone)
    }

    fn run_all(&mut self, statements: Vec<Statement>, alone: bool) -> Done<()> {
        let mut statements = statements.into_iter();
        while let Some(statement) = statements.next() {
            self.check_failed(&statement)?;
            self.start();
            if let Statement::CopyIn(table) = &statement {
                let rest = Some(statements.collect());
                self.start_copy(table, rest)?;
                return Ok(());
            }
            if statement == Statement::DiscardAll && (!alone || self.is_explicit()) {
                return Err(fail("25001", "DISCARD ALL cannot run inside a transaction block"));
            }
            let reply = self.run(&statement, None)?;
            if !reply.columns.is_empty() {
                describe_columns(&mut self.out, &reply.columns);
            }
            self.say_rows(&reply.rows);
            complete(&mut self.out, &reply.tag);
        }
        Ok(())
    }

    fn end_query(&mut self, done: Done<()>) {
        if let Err(error) = done {
            self.fail(&error);
        } else if self.copying.is_some() {
            return;
        } else {
            self.end_implicit();
        }
        self.ready();
    }

    pub(crate) fn check_failed(&self, statement: &Statement) -> Done<()> {
        if self.is_failed() && !statement.ends_transaction() {
            return Err(fail("25P02", "current transaction is aborted"));
        }
        Ok(())
    }

    fn say_rows(&mut self, rows: &[Vec<String>]) {
        for row in rows {
            let mut body = (row.len() as u16).to_be_bytes().to_vec();
            for value in row {
                body.extend_from_slice(&(value.len() as u32).to_be_bytes());
                body.extend_from_slice(value.as_bytes());
            }
            frame(&mut self.out, b'D', &body);
        }
    }

    // === extended protocol ===

    fn parse(&mut self, body: &[u8]) -> Done<()> {
        let mut reader = Reader(body);
        let (name, text, types) = (reader.text()?, reader.text()?, reader.u16()?);
        reader.take(usize::from(types) * 4)?;
        reader.end()?;
        if name.is_empty() {
            self.prepared.remove(&b""[..]);
        }
        // A name's own faults come first, as the router has them: it knows them
        // without asking. A server reads the text before it looks at the name.
        let ends = sql::parse(&String::from_utf8_lossy(text))
            .is_ok_and(|list| list.iter().all(Statement::ends_transaction));
        if !name.is_empty() && self.is_failed() && !ends {
            return Err(fail("25P02", "current transaction is aborted"));
        }
        if !name.is_empty() && self.prepared.contains_key(name) {
            return Err(fail("42P05", "prepared statement already exists"));
        }
        let mut statements = read(text)?;
        if statements.len() > 1 {
            return Err(fail("42601", "several commands in a prepared statement"));
        }
        let statement = statements.pop();
        if let Some(statement) = &statement {
            self.check_failed(statement)?;
            self.check_table(statement)?;
        }
        let columns = statement.as_ref().map_or(0, |s| self.star_columns(s));
        self.prepared.insert(name.to_vec(), Prepared { statement, columns });
        frame(&mut self.out, b'1', &[]);
        Ok(())
    }

    fn bind(&mut self, body: &[u8]) -> Done<()> {
        let mut reader = Reader(body);
        let (portal, name) = (reader.text()?, reader.text()?);
        let formats = reader.u16()?;
        reader.take(usize::from(formats) * 2)?;
        let count = reader.u16()?;
        let mut argument = None;
        for _ in 0..count {
            let length = reader.u32()? as usize;
            argument = Some(String::from_utf8_lossy(reader.take(length)?).into_owned());
        }
        let formats = reader.u16()?;
        reader.take(usize::from(formats) * 2)?;
        reader.end()?;
        let prepared = self.prepared.get(name).cloned();
        let Some(prepared) = prepared else {
            return Err(fail("26000", "prepared statement does not exist"));
        };
        if let Some(statement) = &prepared.statement {
            // Before the count: a backend that must prepare it first can't.
            self.check_failed(statement)?;
        }
        let wanted = prepared.statement.as_ref().map_or(0, Statement::params);
        if wanted != count {
            return Err(fail("08P01", "wrong number of parameters"));
        }
        if let Some(statement) = &prepared.statement {
            self.check_table(statement)?;
            if prepared.columns != self.star_columns(statement) {
                return Err(stale());
            }
        }
        if !portal.is_empty() && self.portals.contains_key(portal) {
            return Err(fail("42P03", "portal already exists"));
        }
        let statement = prepared.statement;
        self.portals
            .insert(portal.to_vec(), Portal { statement, argument, rows: None, done: false });
        frame(&mut self.out, b'2', &[]);
        Ok(())
    }

    fn describe(&mut self, body: &[u8]) -> Done<()> {
        let (kind, name) = target(body)?;
        let (statement, columns) = if kind == b'S' {
            let Some(prepared) = self.prepared.get(name).cloned() else {
                return Err(fail("26000", "prepared statement does not exist"));
            };
            (prepared.statement, Some(prepared.columns))
        } else {
            let Some(portal) = self.portals.get(name) else {
                return Err(fail("34000", "portal does not exist"));
            };
            (portal.statement.clone(), None)
        };
        let shape = statement.as_ref().map(|s| self.shape(s, columns)).unwrap_or_default();
        if self.is_failed() && !shape.is_empty() {
            return Err(fail("25P02", "current transaction is aborted"));
        }
        if kind == b'S' {
            let count = statement.as_ref().map_or(0, Statement::params);
            let mut body = count.to_be_bytes().to_vec();
            body.extend((0..count).flat_map(|_| 23_u32.to_be_bytes()));
            frame(&mut self.out, b't', &body);
        }
        if shape.is_empty() {
            frame(&mut self.out, b'n', &[]);
        } else {
            describe_columns(&mut self.out, &shape);
        }
        Ok(())
    }

    fn execute(&mut self, body: &[u8]) -> Done<()> {
        let mut reader = Reader(body);
        let (name, limit) = (reader.text()?, reader.u32()? as usize);
        reader.end()?;
        let Some(mut portal) = self.portals.remove(name) else {
            return Err(fail("34000", "portal does not exist"));
        };
        let done = self.execute_portal(&mut portal, limit);
        // The end of a transaction takes the portals with it.
        if self.tx.is_some() {
            self.portals.insert(name.to_vec(), portal);
        }
        done
    }

    fn execute_portal(&mut self, portal: &mut Portal, limit: usize) -> Done<()> {
        let Some(statement) = portal.statement.clone() else {
            frame(&mut self.out, b'I', &[]);
            return Ok(());
        };
        self.check_failed(&statement)?;
        if let Statement::CopyIn(table) = &statement {
            portal.done = true;
            return self.start_copy(table, None);
        }
        if portal.rows.is_none() {
            if portal.done {
                return Err(fail("55000", "portal cannot be run"));
            }
            let reply = self.run(&statement, portal.argument.as_deref())?;
            portal.done = true;
            if reply.columns.is_empty() {
                complete(&mut self.out, &reply.tag);
                return Ok(());
            }
            portal.rows = Some(reply.rows);
        }
        let rows = portal.rows.get_or_insert_default();
        let some = if limit == 0 { rows.len() } else { limit.min(rows.len()) };
        let sent: Vec<_> = rows.drain(..some).collect();
        let suspended = limit > 0 && sent.len() == limit;
        self.say_rows(&sent);
        if suspended {
            frame(&mut self.out, b's', &[]);
        } else {
            complete(&mut self.out, &format!("SELECT {}", sent.len()));
        }
        Ok(())
    }

    fn close(&mut self, body: &[u8]) -> Done<()> {
        let (kind, name) = target(body)?;
        if kind == b'S' {
            self.prepared.remove(name);
        } else {
            self.portals.remove(name);
        }
        frame(&mut self.out, b'3', &[]);
        Ok(())
    }

    // === COPY ===

    fn start_copy(&mut self, table: &str, rest: Option<Vec<Statement>>) -> Done<()> {
        frame(&mut self.out, b'G', &[0, 0, 1, 0, 0]);
        self.copying = Some(Copying { table: table.to_owned(), text: Vec::new(), rest });
        Ok(())
    }

    fn on_copy(&mut self, tag: u8, body: &[u8]) {
        let Some(mut copying) = self.copying.take() else { return };
        let done = match tag {
            b'd' => {
                copying.text.extend_from_slice(body);
                if !copying.text.windows(2).any(|w| w == b"x\n") {
                    self.copying = Some(copying);
                    return;
                }
                Err(fail("22P02", "invalid input syntax"))
            }
            b'H' | b'S' => {
                self.copying = Some(copying);
                return;
            }
            b'c' => Ok(()),
            b'f' => Err(fail("57014", "COPY from stdin failed")),
            b'X' => return self.hang_up(),
            other => panic!("the router sent message {other} to a copying server"),
        };
        let batch = copying.rest.is_none();
        let done = done.and_then(|()| {
            let text = String::from_utf8_lossy(&copying.text).into_owned();
            let values: Vec<String> = text.lines().map(str::to_owned).collect();
            let count = values.len();
            self.change(&copying.table, |rows| rows.extend(values));
            complete(&mut self.out, &format!("COPY {count}"));
            self.run_all(copying.rest.unwrap_or_default(), false)
        });
        match done {
            Err(error) if batch => {
                self.fail(&error);
                self.skipping = true;
            }
            Ok(()) if batch => {}
            done => self.end_query(done),
        }
    }
}

fn read(text: &[u8]) -> Done<Vec<Statement>> {
    let text = std::str::from_utf8(text).unwrap();
    sql::parse(text).map_err(|_| fail("42601", "syntax error"))
}

pub(crate) fn fail(code: &'static str, message: &str) -> Fail {
    Fail(code, message.to_owned())
}

pub(crate) fn malformed() -> Fail {
    fail("08P01", "invalid message format")
}

pub(crate) fn stale() -> Fail {
    fail("0A000", "cached plan must not change result type")
}

fn target(body: &[u8]) -> Done<(u8, &[u8])> {
    match body {
        [kind @ (b'S' | b'P'), name @ .., 0] if !name.contains(&0) => Ok((*kind, name)),
        _ => Err(malformed()),
    }
}

struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn take(&mut self, count: usize) -> Done<&'a [u8]> {
        let (head, rest) = self.0.split_at_checked(count).ok_or_else(malformed)?;
        self.0 = rest;
        Ok(head)
    }

    fn text(&mut self) -> Done<&'a [u8]> {
        let at = self.0.iter().position(|b| *b == 0).ok_or_else(malformed)?;
        let text = self.take(at)?;
        self.take(1)?;
        Ok(text)
    }

    fn u16(&mut self) -> Done<u16> {
        Ok(u16::from_be_bytes(self.take(2)?.try_into().unwrap()))
    }

    fn u32(&mut self) -> Done<u32> {
        Ok(u32::from_be_bytes(self.take(4)?.try_into().unwrap()))
    }

    pub(crate) fn end(&self) -> Done<()> {
        if self.0.is_empty() { Ok(()) } else { Err(malformed()) }
    }
}

pub(crate) fn frame(out: &mut Vec<u8>, tag: u8, body: &[u8]) {
    out.push(tag);
    out.extend_from_slice(&(body.len() as u32 + 4).to_be_bytes());
    out.extend_from_slice(body);
}

fn complete(out: &mut Vec<u8>, tag: &str) {
    frame(out, b'C', format!("{tag}\0").as_bytes());
}

fn describe_columns(out: &mut Vec<u8>, columns: &[String]) {
    let mut body = (columns.len() as u16).to_be_bytes().to_vec();
    for name in columns {
        body.extend_from_slice(name.as_bytes());
        body.push(0);
        body.extend_from_slice(&[0; 18]);
    }
    frame(out, b'T', &body);
}

pub(crate) fn say_error(out: &mut Vec<u8>, tag: u8, severity: &str, Fail(code, message): &Fail) {
    let mut body = format!("S{severity}\0V{severity}\0C{code}\0M{message}\0");
    if *code == "0A000" {
        body.push_str("RRevalidateCachedQuery\0");
    }
    body.push('\0');
    frame(out, tag, body.as_bytes());
}

const DEFAULTS: &[(&str, &str)] =
    &[("application_name", ""), ("timezone", "UTC"), ("work_mem", "4MB")];
const REPORTED: &[&str] = &["application_name", "timezone"];
