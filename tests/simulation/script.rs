//! What a simulated client says: random sequences of well-formed and malformed
//! messages, made before anything is answered.

use crate::random::Random;
use crate::server::frame;

/// One client's words, cut where it pauses.
pub(crate) struct Script {
    /// What it says, in the order in which it says it.
    pub(crate) bytes: Vec<u8>,
    /// The same in words, for a failure's report.
    pub(crate) words: Vec<String>,
}

/// A script of some length for the client with this number.
pub(crate) fn script(random: &mut Random, client: usize, units: usize) -> Script {
    let mut writer = Writer { random, client, bytes: Vec::new(), words: Vec::new() };
    for _ in 0..units {
        writer.unit();
    }
    // Whatever is open ends; a client that leaves hears no late replies.
    writer.message(b'S', &[]);
    writer.query("rollback");
    writer.query("show application_name");
    writer.message(b'X', &[]);
    Script { bytes: writer.bytes, words: writer.words }
}

struct Writer<'r> {
    random: &'r mut Random,
    client: usize,
    bytes: Vec<u8>,
    words: Vec<String>,
}

impl Writer<'_> {
    fn message(&mut self, tag: u8, body: &[u8]) {
        frame(&mut self.bytes, tag, body);
        let text = String::from_utf8_lossy(body).replace('\0', "|");
        self.words.push(format!("{} {text}", char::from(tag)));
    }

    fn query(&mut self, text: &str) {
        self.message(b'Q', format!("{text}\0").as_bytes());
    }

    fn unit(&mut self) {
        match self.random.below(20) {
            0..=4 => {
                let text = self.statement();
                self.query(&text);
            }
            5 | 6 => {
                let count = 2 + self.random.below(3);
                let texts: Vec<String> = (0..count).map(|_| self.mixable()).collect();
                self.query(&texts.join("; "));
            }
            7..=12 => self.batch(),
            13 => {
                let text = self.random.pick(&["begin", "commit", "rollback"]);
                self.query(text);
            }
            14 => {
                let text = self.random.pick(&["savepoint s", "rollback to s", "release s"]);
                self.query(text);
            }
            15 | 16 => self.copy_by_query(),
            17 => self.named_pair(),
            18 => self.malformed(),
            _ => {
                self.query("begin");
                for _ in 0..self.random.below(4) {
                    self.unit();
                }
                let text = self.random.pick(&["commit", "rollback", "commit"]);
                self.query(text);
            }
        }
    }

    fn table(&self) -> String {
        format!("t{}", self.client)
    }

    /// A statement for a simple query of its own.
    fn statement(&mut self) -> String {
        match self.random.below(12) {
            0 => "discard all".to_owned(),
            1 => "deallocate all".to_owned(),
            2 => format!("deallocate {}", self.name()),
            3 => format!("prepare {} as select v from {}", self.name(), self.table()),
            4 => format!("prepare {} as select {}", self.name(), self.random.below(100)),
            5 | 6 => format!("execute {}", self.name()),
            7 => format!("alter table {} add column x int", self.table()),
            8 => String::new(),
            _ => self.mixable(),
        }
    }

    /// A statement that may stand among others.
    fn mixable(&mut self) -> String {
        let (table, number) = (self.table(), self.random.below(1000));
        let setting = self.random.pick(&["application_name", "timezone", "work_mem"]);
        match self.random.below(24) {
            0..=2 => format!("select {number}"),
            3 => "select 1/0".to_owned(),
            4 | 5 => format!("select v from {table}"),
            6 => format!("select * from {table}"),
            7..=9 => format!("insert into {table} values ({number})"),
            10 => format!("delete from {table}"),
            11 => "selec".to_owned(),
            12 => "select v from missing".to_owned(),
            13 | 14 => format!("set {setting} = 'c{}n{number}'", self.client),
            15 => format!("set local {setting} = 'l{}n{number}'", self.client),
            16 => format!("reset {setting}"),
            17 => "reset all".to_owned(),
            18 | 19 => format!("show {setting}"),
            20 => format!("select set_config('{setting}', 'f{number}', false)"),
            21 => format!("set {setting} to default"),
            22 => format!("copy {table} to stdout"),
            _ => match self.random.below(3) {
                0 => "set nonsense = 1".to_owned(),
                1 => "do $$ begin raise notice 'heard'; end $$".to_owned(),
                // Other settings that a function makes are not carried.
                _ => format!(
                    "do $$ begin perform set_config('timezone', 'd{number}', false); end $$"
                ),
            },
        }
    }

    fn name(&mut self) -> &'static str {
        self.random.pick(&["a", "b", "c"])
    }

    fn parse(&mut self, name: &str, text: &str) {
        self.message(b'P', format!("{name}\0{text}\0\0\0").as_bytes());
    }

    fn bind(&mut self, portal: &str, name: &str, value: Option<usize>) {
        let mut body = format!("{portal}\0{name}\0\0\0").into_bytes();
        match value {
            None => body.extend_from_slice(&[0, 0]),
            Some(number) => {
                let text = number.to_string();
                body.extend_from_slice(&[0, 1]);
                body.extend_from_slice(&(text.len() as u32).to_be_bytes());
                body.extend_from_slice(text.as_bytes());
            }
        }
        body.extend_from_slice(&[0, 0]);
        self.message(b'B', &body);
    }

    fn execute(&mut self, portal: &str, rows: usize) {
        let mut body = format!("{portal}\0").into_bytes();
        body.extend_from_slice(&(rows as u32).to_be_bytes());
        self.message(b'E', &body);
    }

    /// Parse, Bind, Describe, Execute in an order that often makes sense.
    fn batch(&mut self) {
        for _ in 0..=self.random.below(4) {
            match self.random.below(12) {
                0..=4 => self.whole(),
                5 => {
                    let name = self.name();
                    let (text, _) = self.preparable();
                    self.parse(name, &text);
                    if self.random.chance(2) {
                        self.message(b'D', format!("S{name}\0").as_bytes());
                    }
                }
                6 | 7 => {
                    let name = self.name();
                    let value = self.random.chance(4).then_some(5);
                    self.bind("", name, value);
                    self.execute("", 0);
                }
                8 => {
                    let name = self.name();
                    self.message(b'C', format!("S{name}\0").as_bytes());
                }
                9 => self.message(b'H', &[]),
                10 => self.copy_in_batch(),
                _ => {
                    self.parse("", "select generate_series(1, 5)");
                    let portal = self.random.pick(&["", "p"]);
                    self.bind(portal, "", None);
                    for _ in 0..self.random.below(4) {
                        self.execute(portal, 2);
                    }
                    if portal == "p" && self.random.chance(2) {
                        self.message(b'C', b"Pp\0");
                    }
                }
            }
        }
        match self.random.below(12) {
            0 => self.query("select 'no Sync before'"),
            1 => self.message(b'S', b"x"),
            _ => self.message(b'S', &[]),
        }
    }

    fn whole(&mut self) {
        let (text, value) = match self.random.below(10) {
            0 => ("begin".to_owned(), None),
            1 => ("commit".to_owned(), None),
            2 => ("rollback".to_owned(), None),
            _ => self.preparable(),
        };
        self.parse("", &text);
        if self.random.chance(8) {
            self.message(b'H', &[]);
        }
        self.bind("", "", value);
        if self.random.chance(2) {
            self.message(b'D', b"P\0");
        }
        self.execute("", 0);
    }

    /// A statement for Parse, with the value that its Bind needs.
    fn preparable(&mut self) -> (String, Option<usize>) {
        match self.random.below(8) {
            0 => ("select $1::int4".to_owned(), Some(self.random.below(100))),
            1 => {
                (format!("insert into {} values ($1)", self.table()), Some(self.random.below(100)))
            }
            2 => (format!("select v from {}", self.table()), None),
            3 => (String::new(), None),
            _ => loop {
                let text = self.mixable();
                // The shape of a star may differ from what a server knew.
                if !text.contains('*') {
                    break (text, None);
                }
            },
        }
    }

    /// A name that is made one way and used the other.
    fn named_pair(&mut self) {
        let (name, table) = (self.name(), self.table());
        if self.random.chance(2) {
            self.query(&format!("prepare {name} as select v from {table}"));
            self.bind("", name, None);
            self.execute("", 0);
        } else {
            self.parse(name, &format!("select v from {table}"));
            self.message(b'S', &[]);
            self.query(&format!("execute {name}"));
        }
        self.message(b'S', &[]);
    }

    fn copy_by_query(&mut self) {
        let behind = self.random.pick(&["", "; select 'behind'", "; select 1/0"]);
        let before = self.random.pick(&["", "", "select 'before'; "]);
        self.query(&format!("{before}copy {} from stdin{behind}", self.table()));
        self.copy_data();
    }

    fn copy_in_batch(&mut self) {
        self.parse("", &format!("copy {} from stdin", self.table()));
        self.bind("", "", None);
        self.execute("", 0);
        match self.random.below(4) {
            0 => self.message(b'S', &[]),
            1 => self.message(b'H', &[]),
            _ => {}
        }
        self.copy_data();
    }

    fn copy_data(&mut self) {
        for _ in 0..self.random.below(3) {
            let value = self.random.below(100);
            let line = if self.random.chance(8) { "x\n".to_owned() } else { format!("{value}\n") };
            self.message(b'd', line.as_bytes());
        }
        if self.random.chance(4) {
            self.message(b'f', b"changed my mind\0");
        } else {
            self.message(b'c', &[]);
        }
    }

    fn malformed(&mut self) {
        match self.random.below(6) {
            0 => self.message(b'Q', b"select 1"),
            1 => self.message(b'Q', b"select 1\0more\0"),
            2 => self.message(b'P', b"a\0select 1"),
            3 => self.message(b'B', b"\0a\0\0"),
            4 => self.message(b'D', b"Xa\0"),
            _ => self.message(b'E', b"\0\0"),
        }
        self.message(b'S', &[]);
    }
}
