//! Who is asked for what: rules in the order and words of `pg_hba.conf`, and
//! maps of names in those of `pg_ident.conf`.
//!
//! The first rule that fits a connection decides; without one it is refused.
//! What needs a role's memberships, a name service, regular expressions or
//! another file is refused where it is read, with its line, rather than left
//! out: a rule that is skipped lets the next one decide.
//!
//! Source: PostgreSQL manual, "The pg_hba.conf File", "User Name Maps".

mod fields;
mod names;
mod parse;

pub use self::names::NameMaps;

use core::net::IpAddr;

use crate::document::Problem;
use crate::types::Network;

/// A file of rules.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Rules(Vec<Rule>);

/// One line of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rule {
    /// Where it stands in the file, from 1.
    pub line: usize,
    connection: Connection,
    databases: Vec<DatabaseWord>,
    users: Vec<UserWord>,
    addresses: Addresses,
    /// How the client proves who it is.
    pub method: Method,
    /// What the client's certificate must be, beside that.
    pub certificate: Certificate,
    /// The map that leads from a certificate's name to users.
    pub map: Option<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Connection {
    Local,
    Host,
    HostSsl,
    HostNoSsl,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum DatabaseWord {
    All,
    SameUser,
    Replication,
    Name(String),
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum UserWord {
    All,
    Name(String),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Addresses {
    All,
    In(Network),
}

/// How a client proves who it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Method {
    /// Not at all.
    Trust,
    /// It can't.
    Reject,
    /// By SCRAM-SHA-256.
    Scram,
    /// By SCRAM-SHA-256, or by MD5 where MD5's hash is stored.
    Md5,
    /// By sending the password.
    Password,
    /// By the name in its certificate.
    Cert,
}

/// What a client's certificate must be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Certificate {
    /// Anything, also absent.
    Any,
    /// Trusted.
    Trusted,
    /// Trusted, and of the user.
    OfUser,
}

/// A connection whose rule is looked for.
#[derive(Clone, Copy, Debug)]
pub struct Caller<'a> {
    /// Its address; `None` on a Unix socket.
    pub address: Option<IpAddr>,
    /// Whether it is encrypted.
    pub encrypted: bool,
    /// The database that it asks for.
    pub database: &'a str,
    /// Whether it asks for physical replication, and so for no database.
    pub replication: bool,
    /// The user that it claims to be.
    pub user: &'a str,
}

impl Rules {
    /// The rules of a file's text; `file` is its name in messages.
    ///
    /// # Errors
    /// Everything that is wrong or not supported, in the order of the text.
    pub fn parse(text: &str, file: &str) -> Result<Self, Vec<Problem>> {
        parse::rules(text, file).map(Self)
    }

    /// The first rule that fits.
    pub fn find(&self, caller: &Caller<'_>) -> Option<&Rule> {
        self.0.iter().find(|rule| rule.fits(caller))
    }

    /// How many rules there are.
    pub const fn len(&self) -> usize {
        self.0.len()
    }

    /// True if every connection is refused.
    pub const fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The maps of names that the rules name, with the rules' lines.
    pub fn maps(&self) -> impl Iterator<Item = (usize, &str)> {
        self.0.iter().filter_map(|rule| Some((rule.line, rule.map.as_deref()?)))
    }

    /// The line of the first rule that asks for a client's certificate.
    pub fn first_with_certificate(&self) -> Option<usize> {
        let wants = |rule: &&Rule| rule.certificate != Certificate::Any;
        self.0.iter().find(wants).map(|rule| rule.line)
    }
}

impl Rule {
    fn fits(&self, caller: &Caller<'_>) -> bool {
        let connection = match (self.connection, caller.address) {
            (Connection::Local, address) => address.is_none(),
            (Connection::Host, address) => address.is_some(),
            (Connection::HostSsl, address) => address.is_some() && caller.encrypted,
            (Connection::HostNoSsl, address) => address.is_some() && !caller.encrypted,
        };
        let address = match (self.addresses, caller.address) {
            (Addresses::All, _) | (Addresses::In(_), None) => true,
            (Addresses::In(network), Some(address)) => network.contains(address),
        };
        connection
            && address
            && self.databases.iter().any(|word| word.fits(caller))
            && self.users.iter().any(|word| match word {
                UserWord::All => true,
                UserWord::Name(name) => name == caller.user,
            })
    }
}

impl DatabaseWord {
    fn fits(&self, caller: &Caller<'_>) -> bool {
        // `all` does not mean replication, which is of no database.
        match self {
            Self::Replication => caller.replication,
            Self::All => !caller.replication,
            Self::SameUser => !caller.replication && caller.database == caller.user,
            Self::Name(name) => !caller.replication && name == caller.database,
        }
    }
}

#[cfg(test)]
mod tests;
