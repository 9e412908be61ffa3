//! The model server's statements: what each does, and what it replies.

use crate::server::{
    Done, Fail, Prepared, Reply, Server, fail, frame, malformed, say_error, stale,
};
use crate::sql::{Statement, Value};

impl Server {
    pub(crate) fn star_columns(&self, statement: &Statement) -> usize {
        match statement {
            Statement::Table { name, star: true } => {
                self.tables.borrow().columns.get(name).copied().unwrap_or(1)
            }
            _ => 0,
        }
    }

    pub(crate) fn shape(&self, statement: &Statement, columns: Option<usize>) -> Vec<String> {
        match statement {
            Statement::Select(_) | Statement::DivideByZero => vec!["?column?".to_owned()],
            Statement::Series(_) => vec!["generate_series".to_owned()],
            Statement::Table { star: false, .. } => vec!["v".to_owned()],
            Statement::Table { star: true, .. } => {
                let count = columns.unwrap_or_else(|| self.star_columns(statement));
                (0..count).map(|n| if n == 0 { "v".to_owned() } else { format!("c{n}") }).collect()
            }
            Statement::SetConfig { .. } => vec!["set_config".to_owned()],
            Statement::Show(name) => vec![name.clone()],
            _ => Vec::new(),
        }
    }

    pub(crate) fn check_table(&self, statement: &Statement) -> Done<()> {
        match statement {
            Statement::Table { name, .. } if name == "missing" => {
                Err(fail("42P01", "relation does not exist"))
            }
            _ => Ok(()),
        }
    }

    pub(crate) fn run(&mut self, statement: &Statement, argument: Option<&str>) -> Done<Reply> {
        use Statement as S;
        self.check_table(statement)?;
        let columns = self.shape(statement, None);
        let valued = |value: &Value| match value {
            Value::Text(text) => text.clone(),
            Value::Param => argument.unwrap_or("NULL").to_owned(),
        };
        Ok(match statement {
            S::Select(value) => Reply::rows(columns, vec![vec![valued(value)]]),
            S::DivideByZero => return Err(fail("22012", "division by zero")),
            S::Series(count) => {
                Reply::rows(columns, (1..=*count).map(|n| vec![n.to_string()]).collect())
            }
            S::Table { name, .. } => {
                let width = columns.len();
                let rows = self.tables.borrow().rows.get(name).cloned().unwrap_or_default();
                let rows = rows.into_iter().map(|v| vec![v; width]).collect();
                Reply::rows(columns, rows)
            }
            S::Insert(table, value) => {
                let value = valued(value);
                self.change(table, |rows| rows.push(value));
                Reply::tag("INSERT 0 1")
            }
            S::Delete(table) => {
                let mut count = 0;
                self.change(table, |rows| count = std::mem::take(rows).len());
                Reply::tag(&format!("DELETE {count}"))
            }
            S::Alter(table) => {
                *self.tables.borrow_mut().columns.entry(table.clone()).or_insert(1) += 1;
                Reply::tag("ALTER TABLE")
            }
            S::CopyOut(table) => {
                let rows = self.tables.borrow().rows.get(table).cloned().unwrap_or_default();
                frame(&mut self.out, b'H', &[0, 0, 1, 0, 0]);
                for row in &rows {
                    frame(&mut self.out, b'd', format!("{row}\n").as_bytes());
                }
                frame(&mut self.out, b'c', &[]);
                Reply::tag(&format!("COPY {}", rows.len()))
            }
            S::CopyIn(_) => unreachable!("started by its callers"),
            S::Notice(message) => {
                say_error(&mut self.out, b'N', "NOTICE", &Fail("00000", message.clone()));
                Reply::tag("")
            }
            S::Do(statements) => {
                for statement in statements {
                    self.run(statement, None)?;
                }
                Reply::tag("DO")
            }
            _ => return self.run_for_session(statement, columns),
        })
    }

    /// Statements about the session and its transaction.
    fn run_for_session(&mut self, statement: &Statement, columns: Vec<String>) -> Done<Reply> {
        use Statement as S;
        match statement {
            S::Prepare { .. } | S::Execute { .. } | S::Deallocate(_) | S::DeallocateAll => {
                self.run_prepared(statement)
            }
            S::Show(name) => {
                let rows = Reply::rows(columns, vec![vec![self.known(name)?]]);
                Ok(Reply { tag: "SHOW".to_owned(), ..rows })
            }
            S::Set { .. } | S::SetConfig { .. } | S::Reset(_) | S::ResetAll => {
                self.run_setting(statement)
            }
            S::DiscardAll => {
                self.session = self.reset.clone();
                self.local.clear();
                self.prepared.clear();
                self.portals.clear();
                Ok(Reply::tag("DISCARD ALL"))
            }
            S::Discard(what) => {
                if *what == "portals" {
                    self.portals.clear();
                }
                Ok(Reply::tag("DISCARD"))
            }
            _ => self.run_transaction(statement),
        }
    }

    pub(crate) fn change(&mut self, table: &str, change: impl FnOnce(&mut Vec<String>)) {
        let mut tables = self.tables.borrow_mut();
        let rows = tables.rows.entry(table.to_owned()).or_default();
        if let Some(tx) = &mut self.tx {
            tx.undo.push((table.to_owned(), rows.clone()));
        }
        change(rows);
    }

    pub(crate) fn known(&self, name: &str) -> Done<String> {
        if self.reset.contains_key(name) || self.session.contains_key(name) {
            Ok(self.setting(name))
        } else {
            Err(fail("42704", "unrecognized configuration parameter"))
        }
    }

    pub(crate) fn run_setting(&mut self, statement: &Statement) -> Done<Reply> {
        match statement {
            Statement::Set { name, value, local } => {
                self.known(name)?;
                let value = value.clone().unwrap_or_else(|| self.reset[name].clone());
                if *local && !self.is_explicit() {
                    let message = "SET LOCAL can only be used in transaction blocks".to_owned();
                    say_error(&mut self.out, b'N', "WARNING", &Fail("25P01", message));
                }
                self.set(name, value, *local);
                Ok(Reply::tag("SET"))
            }
            Statement::SetConfig { name, value, local } => {
                self.known(name)?;
                self.set(name, value.clone(), *local);
                Ok(Reply::rows(vec!["set_config".to_owned()], vec![vec![value.clone()]]))
            }
            Statement::Reset(name) => {
                self.known(name)?;
                self.set(name, self.reset[name].clone(), false);
                Ok(Reply::tag("RESET"))
            }
            _ => {
                self.session = self.reset.clone();
                self.local.clear();
                Ok(Reply::tag("RESET"))
            }
        }
    }

    pub(crate) fn set(&mut self, name: &str, value: String, local: bool) {
        if local {
            self.local.insert(name.to_owned(), value);
        } else {
            self.local.remove(name);
            self.session.insert(name.to_owned(), value);
        }
    }

    pub(crate) fn run_prepared(&mut self, statement: &Statement) -> Done<Reply> {
        match statement {
            Statement::Prepare { name, statement } => {
                self.check_table(statement)?;
                if self.prepared.contains_key(name.as_bytes()) {
                    return Err(fail("42P05", "prepared statement already exists"));
                }
                let columns = self.star_columns(statement);
                let prepared = Prepared { statement: Some((**statement).clone()), columns };
                self.prepared.insert(name.clone().into_bytes(), prepared);
                Ok(Reply::tag("PREPARE"))
            }
            Statement::Execute { name, argument } => {
                let Some(prepared) = self.prepared.get(name.as_bytes()).cloned() else {
                    return Err(fail("26000", "prepared statement does not exist"));
                };
                let Some(inner) = prepared.statement else {
                    return Err(fail("0A000", "empty prepared statement"));
                };
                if inner.params() != u16::from(argument.is_some()) {
                    return Err(fail("42601", "wrong number of parameters"));
                }
                if prepared.columns != self.star_columns(&inner) {
                    return Err(stale());
                }
                self.run(&inner, argument.as_deref())
            }
            Statement::Deallocate(name) => match self.prepared.remove(name.as_bytes()) {
                Some(_) => Ok(Reply::tag("DEALLOCATE")),
                None => Err(fail("26000", "prepared statement does not exist")),
            },
            _ => {
                self.prepared.clear();
                Ok(Reply::tag("DEALLOCATE ALL"))
            }
        }
    }

    pub(crate) fn run_transaction(&mut self, statement: &Statement) -> Done<Reply> {
        let explicit = self.is_explicit();
        let failed = self.is_failed();
        let warn = |out: &mut Vec<u8>, code, message: &str| {
            say_error(out, b'N', "WARNING", &Fail(code, message.to_owned()));
        };
        match statement {
            Statement::Begin => {
                if explicit {
                    warn(&mut self.out, "25001", "there is already a transaction in progress");
                }
                if let Some(tx) = &mut self.tx {
                    tx.explicit = true;
                }
                Ok(Reply::tag("BEGIN"))
            }
            Statement::Commit | Statement::Rollback => {
                if !explicit {
                    warn(&mut self.out, "25P01", "there is no transaction in progress");
                }
                let commit = *statement == Statement::Commit && !failed;
                self.end(commit);
                Ok(Reply::tag(if commit { "COMMIT" } else { "ROLLBACK" }))
            }
            _ if !explicit => Err(fail("25P01", "can only be used in transaction blocks")),
            Statement::Savepoint(name) => {
                let settings = (self.session.clone(), self.local.clone());
                if let Some(tx) = &mut self.tx {
                    tx.savepoints.push((name.clone(), tx.undo.len(), settings));
                }
                Ok(Reply::tag("SAVEPOINT"))
            }
            Statement::Release(name) | Statement::RollbackTo(name) => {
                let Some(mut tx) = self.tx.take() else { return Err(malformed()) };
                let found = tx.savepoints.iter().rposition(|(n, _, _)| n == name);
                let Some(at) = found else {
                    self.tx = Some(tx);
                    return Err(fail("3B001", "savepoint does not exist"));
                };
                if let Statement::RollbackTo(_) = statement {
                    tx.savepoints.truncate(at + 1);
                    let (_, undo, settings) = &tx.savepoints[at];
                    (self.session, self.local) = settings.clone();
                    let to = *undo;
                    self.undo(&mut tx.undo, to);
                    tx.failed = false;
                } else {
                    tx.savepoints.truncate(at);
                }
                self.tx = Some(tx);
                let rolled = matches!(statement, Statement::RollbackTo(_));
                Ok(Reply::tag(if rolled { "ROLLBACK" } else { "RELEASE" }))
            }
            _ => Err(malformed()),
        }
    }
}
