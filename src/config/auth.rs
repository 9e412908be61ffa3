//! Settings of authentication: the files of rules, and the lookup of users.

use crate::types::{Millis, Secret};

use super::reader::Reader;
use super::setting::{section, words};

words! {
    /// As whom the router logs in at backends.
    BackendLogin {
        /// As the shard map says; as the client's user where it names nobody.
        #[default]
        Shard = "shard",
        /// As the client's user, whatever the map says.
        Own = "own",
    }
}

section! {
    /// Who is asked for what, and where users are looked up.
    Auth in "auth." {
        /// File of rules in the form of `pg_hba.conf`: the first that fits decides what a connection is asked for, and without one it is refused. It is read again with the configuration.
        hba_file: Option<String> = None;
        /// File in the form of `pg_ident.conf`, with the maps that rules name by `map=`.
        ident_file: Option<String> = None;
        /// Role that looks up the passwords of users who have no `[[user]]`, over connections of its own to the home shard; nobody is looked up if absent.
        query_user: Option<String> = None;
        /// Its password. Prefer one of the three below.
        query_password: Option<Secret> = None;
        /// Environment variable that holds its password.
        query_password_env: Option<String> = None;
        /// File that holds its password.
        query_password_file: Option<String> = None;
        /// Program that prints its password, with its arguments.
        query_password_command: Vec<String> = Vec::new();
        /// What it asks: `$1` is the user, and the answer one row of name and stored password, or none. The search path is empty: names need their schema. Whether the role may log in, and until when its password is valid, the router asks by itself.
        query: String = "SELECT rolname, rolpassword FROM pg_catalog.pg_authid WHERE rolname = $1".to_owned();
        /// The database in which it asks; the shard's own if absent.
        query_dbname: Option<String> = None;
        /// How long an answer is used again, also that there is no such user; at most as long as the password is valid. After a wrong password the next login asks anew.
        query_cache_time: Millis = Millis::new(10_000), Millis::ZERO => Millis::new(3_600_000);
        /// Most answers that are kept.
        query_cache_entries_max: u32 = 10_000, 1 => 1_000_000;
        /// As whom the router logs in at backends: `shard` is as the shard map says, and as the client's user where it names nobody; `own` is always as the client's user. For that the user has a password here, or proves one by SCRAM that all shards store in the same form.
        backend_login: BackendLogin = BackendLogin::Shard;
    }
}

impl Auth {
    pub(super) fn check(&self, reader: &mut Reader<'_>) {
        let passwords = [
            self.query_password.is_some(),
            self.query_password_env.is_some(),
            self.query_password_file.is_some(),
            !self.query_password_command.is_empty(),
        ];
        let given = passwords.iter().filter(|given| **given).count();
        let at = reader.offset_of("auth.query_user");
        if given > 1 {
            reader.refuse(at, "auth: keep one of the ways to give query_password");
        }
        if given > 0 && self.query_user.is_none() {
            reader.refuse(at, "auth: a query_password is given without query_user");
        }
        if !self.query.contains("$1") {
            let at = reader.offset_of("auth.query");
            reader.refuse(at, "auth.query: the query has no $1, which is the user");
        }
        if self.ident_file.is_some() && self.hba_file.is_none() {
            let at = reader.offset_of("auth.ident_file");
            reader.refuse(at, "auth.ident_file is of use only with auth.hba_file");
        }
    }
}
