//! Who a client is: what it is asked for, what is known of the user, and what
//! its proof is worth.
//!
//! A user who is not configured is looked up, if there is a lookup; one who is
//! not known there either goes through SCRAM with a verifier that nobody has
//! the password of.

use std::rc::Rc;
use std::sync::Arc;

use crate::auth::rules::{Caller, Certificate, Method, Rule};
use crate::auth::{
    Account, Binding, Borrowed, Login, Nonce, ServerError, ServerExchange, ServerStep,
    StoredPassword,
};
use crate::config::ClientAuth;
use crate::net::certificate;
use crate::session::Refused;

use super::login::{Ended, Hello, Newcomer, refuse, refuse_with};
use super::logins::Access;
use super::lookups::Validity;
use super::thread::Thread;

/// What is known of a user.
#[derive(Default)]
struct Known {
    /// There is such a user.
    exists: bool,
    /// The password to be proved; `None` if nothing could prove it.
    stored: Option<StoredPassword>,
    /// The role may not log in.
    locked: bool,
    /// The shard that stores another password.
    differs_on: Option<String>,
    /// In which database it was looked up.
    looked_up: Option<usize>,
}

impl Newcomer {
    /// Finds out whether the client is who it claims to be.
    pub(super) async fn authenticate(
        &mut self,
        thread: &Rc<Thread>,
        hello: &Hello,
    ) -> Result<(), Ended> {
        let access = thread.access();
        let method = self.method(thread, &access, hello)?;
        let known = known(thread, &access, hello).await?;
        let login = self.login(thread, method, &known, hello)?;
        let md5 = match &login {
            Login::Md5 { hash, .. } | Login::CleartextMd5 { hash, .. } => Some(hash.clone()),
            Login::Trust | Login::Cleartext(_) | Login::Scram(_) | Login::ScramBound(..) => None,
        };
        let (mut exchange, mut step) =
            ServerExchange::start(login, Nonce::new(thread.random_bytes()));
        let welcome = loop {
            step = match step {
                ServerStep::Send(bytes) => {
                    self.stream()?.write_all(&bytes).await?;
                    let body = self.password_message().await?;
                    exchange.on_message(&body)
                }
                ServerStep::Derive(request) => {
                    let derived = tokio::task::spawn_blocking(move || request.derive()).await;
                    match derived {
                        Ok(salted) => exchange.on_derived(&salted),
                        Err(_) => return Err(Ended::Quiet),
                    }
                }
                ServerStep::Done(bytes) => break bytes,
                ServerStep::Refuse(error) => {
                    if let Some(database) = known.looked_up {
                        thread.doubt_lookup(database, &hello.user);
                    }
                    return Err(wrong(error, &hello.user).into());
                }
            };
        };
        known.check(&hello.user)?;
        let lent = exchange.take_keys().map(Borrowed::Scram).or(md5.map(Borrowed::Md5));
        if let (Some(lent), Some(database)) = (lent, thread.database_named(&hello.database)) {
            database.lend(&hello.user, lent);
        }
        self.stream()?.write_all(&welcome).await?;
        Ok(())
    }

    /// What the client is asked for; its certificate is checked here.
    fn method(&mut self, thread: &Thread, access: &Access, hello: &Hello) -> Result<Method, Ended> {
        let Some(rules) = &access.rules else {
            let user = access.users.by_name.get(&hello.user);
            return Ok(match (user, thread.options.client_auth) {
                (Some(user), _) if user.trust => Method::Trust,
                (_, ClientAuth::Scram) => Method::Scram,
                (_, ClientAuth::Password) => Method::Password,
                (_, ClientAuth::Md5) => Method::Md5,
            });
        };
        let encrypted = self.stream()?.is_tls();
        let caller = Caller {
            address: self.peer.map(|peer| peer.ip()),
            encrypted,
            database: &hello.database,
            replication: hello.is_physical_replication(),
            user: &hello.user,
        };
        let rule = rules.find(&caller).filter(|rule| rule.method != Method::Reject);
        let Some(rule) = rule else {
            let from = match caller.address {
                Some(address) => format!("host \"{address}\""),
                None => "a Unix socket".to_owned(),
            };
            let encryption = if encrypted { "TLS" } else { "no encryption" };
            let message = format!(
                "no rule lets user \"{}\" into database \"{}\" from {from}, {encryption}",
                hello.user, hello.database
            );
            return Err(refuse("28000", message)
                .hint("the rules are in the file that auth.hba_file names")
                .into());
        };
        self.check_certificate(access, rule, &hello.user)?;
        Ok(rule.method)
    }

    fn check_certificate(&mut self, access: &Access, rule: &Rule, user: &str) -> Result<(), Ended> {
        let shown = self.stream()?.client_certificate();
        let owner = match (rule.certificate, shown) {
            (Certificate::Any, _) | (Certificate::Trusted, Some(_)) => return Ok(()),
            (Certificate::Trusted | Certificate::OfUser, None) => {
                return Err(refuse("28000", "connection requires a valid client certificate")
                    .hint("give the client sslcert and sslkey, signed by an authority of tls.client_ca")
                    .into());
            }
            (Certificate::OfUser, Some(shown)) => certificate::common_name(shown),
        };
        let map = rule.map.as_deref();
        if owner.is_some_and(|owner| access.names.allow(map, &owner, user)) {
            return Ok(());
        }
        let message = format!("certificate authentication failed for user \"{user}\"");
        Err(refuse("28000", message)
            .hint("the certificate's common name must be the user, or lead there by the rule's map")
            .into())
    }

    fn login(
        &mut self,
        thread: &Thread,
        method: Method,
        known: &Known,
        hello: &Hello,
    ) -> Result<Login, Ended> {
        let name = hello.user.as_bytes();
        let account = match &known.stored {
            Some(StoredPassword::Scram(verifier)) => Account::Known(Arc::clone(verifier)),
            // Who does not exist must look like a wrong password.
            Some(StoredPassword::Md5(_)) | None => {
                Account::unknown(&thread.options.seed, name, thread.lookups.usual_iterations())
            }
        };
        let private = self.stream()?.is_private();
        Ok(match (method, &known.stored) {
            (Method::Trust | Method::Cert, _) if known.exists => Login::Trust,
            (Method::Trust | Method::Cert, _) => {
                return Err(
                    refuse("28000", format!("user \"{}\" does not exist", hello.user)).into()
                );
            }
            (Method::Md5, Some(StoredPassword::Md5(hash))) => {
                Login::Md5 { hash: hash.clone(), salt: thread.random_bytes() }
            }
            (Method::Password, Some(StoredPassword::Md5(hash))) if private => {
                Login::CleartextMd5 { user: name.to_vec(), hash: hash.clone() }
            }
            (Method::Password, _) if private => Login::Cleartext(account),
            (Method::Scram | Method::Md5 | Method::Password | Method::Reject, _) => {
                match &self.end_point {
                    Some(digest) => Login::ScramBound(account, Binding(Arc::clone(digest))),
                    None => Login::Scram(account),
                }
            }
        })
    }
}

/// What is known of the user: by the configuration, else by a lookup.
async fn known(thread: &Rc<Thread>, access: &Access, hello: &Hello) -> Result<Known, Ended> {
    if let Some(user) = access.users.by_name.get(&hello.user) {
        return Ok(Known { exists: true, stored: user.stored.clone(), ..Known::default() });
    }
    if !access.lookup || thread.options.lookups.is_none() {
        return Ok(Known::default());
    }
    // A database that does not exist is looked into elsewhere, for nothing:
    // else the time would tell which ones there are.
    let named = thread.database_named(&hello.database).map(|database| database.index);
    let Ok(found) = thread.look_up(named.unwrap_or(0), &hello.user).await else {
        return Err(refuse("57P03", "users can't be looked up at the moment")
            .hint("the operator sees the reason in the router's log")
            .into());
    };
    let (Some(database), Some(found)) = (named, found) else {
        return Ok(Known { looked_up: named, ..Known::default() });
    };
    Ok(Known {
        exists: true,
        stored: found.stored.clone().filter(|_| found.validity != Validity::Over),
        locked: !found.may_log_in,
        differs_on: found.differs_on.clone(),
        looked_up: Some(database),
    })
}

impl Known {
    /// What only those learn who have proved who they are.
    fn check(&self, user: &str) -> Result<(), Refused> {
        if self.locked {
            return Err(refuse("28000", format!("role \"{user}\" is not permitted to log in")));
        }
        if let Some(shard) = &self.differs_on {
            let message = format!(
                "shard {shard} does not store the password of \"{user}\" as the home shard does"
            );
            return Err(refuse("28000", message).hint(
                "copy rolpassword from the home shard: ALTER ROLE … PASSWORD 'SCRAM-SHA-256$…'",
            ));
        }
        Ok(())
    }
}

/// Why a client is not let in; strangers are not told more than that.
fn wrong(error: ServerError, user: &str) -> Refused {
    let mut refused = refuse_with(error.sqlstate(), error.to_string(), error.hint());
    if error.sqlstate().as_str() == "28P01" {
        refused.message = format!("password authentication failed for user \"{user}\"");
    }
    refused
}
