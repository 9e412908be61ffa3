//! Reads a file of rules.

use core::net::IpAddr;

use super::fields::{self, Field, Item, Line};
use super::{Addresses, Certificate, Connection, DatabaseWord, Method, Rule, UserWord};
use crate::document::{Problem, Source};
use crate::types::Network;

/// Where a problem is, and what it is.
type Fault = (usize, String);

/// The rules of `text`.
pub(super) fn rules(text: &str, file: &str) -> Result<Vec<Rule>, Vec<Problem>> {
    let source = Source::new(file, text);
    if text.len() > FILE_BYTES_MAX {
        return Err(vec![
            source.problem(0, format!("the file has more than {FILE_BYTES_MAX} bytes")),
        ]);
    }
    let mut problems = Vec::new();
    let mut rules = Vec::new();
    for line in fields::lines(text, &source, &mut problems) {
        match rule(&line) {
            Ok(rule) => rules.push(rule),
            Err((at, reason)) => problems.push(source.problem(at, reason)),
        }
    }
    problems.sort_by_key(|problem| (problem.line, problem.column));
    if problems.is_empty() { Ok(rules) } else { Err(problems) }
}

fn rule(line: &Line) -> Result<Rule, Fault> {
    let mut fields = line.fields.iter();
    let first = fields.next().ok_or_else(|| (0, "an empty rule".to_owned()))?;
    let connection = connection(first)?;
    let missing = |what: &str| (first.at, format!("the rule ends before its {what}"));
    let databases = words(fields.next().ok_or_else(|| missing("databases"))?, database)?;
    let users = words(fields.next().ok_or_else(|| missing("users"))?, user)?;
    let addresses = if connection == Connection::Local {
        Addresses::All
    } else {
        addresses(&mut fields, || missing("address"))?
    };
    let named = fields.next().ok_or_else(|| missing("method"))?;
    let method = method(named)?;
    let mut rule = Rule {
        line: line.number,
        connection,
        databases,
        users,
        addresses,
        method,
        certificate: Certificate::Any,
        map: None,
    };
    for option in fields {
        read_option(&mut rule, option)?;
    }
    if method == Method::Cert {
        rule.certificate = Certificate::OfUser;
    }
    if rule.certificate != Certificate::Any && connection != Connection::HostSsl {
        return Err((named.at, "certificates are for hostssl rules only".to_owned()));
    }
    if rule.map.is_some() && rule.certificate != Certificate::OfUser {
        let reason = "map= needs the method cert or clientcert=verify-full";
        return Err((named.at, reason.to_owned()));
    }
    Ok(rule)
}

fn connection(field: &Field) -> Result<Connection, Fault> {
    let word = field.single().map_or("", |item| &item.text);
    Ok(match word {
        "local" => Connection::Local,
        // The router never speaks GSSAPI encryption.
        "host" | "hostnogssenc" => Connection::Host,
        "hostssl" => Connection::HostSsl,
        "hostnossl" => Connection::HostNoSsl,
        "hostgssenc" => {
            return Err((
                field.at,
                "GSSAPI encryption is not supported: remove the rule".to_owned(),
            ));
        }
        "include" | "include_if_exists" | "include_dir" => {
            return Err((field.at, format!("{word} is not supported: put the rules here")));
        }
        _ => {
            let reason =
                format!("a rule begins with local, host, hostssl or hostnossl, not {word:?}");
            return Err((field.at, reason));
        }
    })
}

fn words<W>(field: &Field, read: fn(&Item) -> Result<W, String>) -> Result<Vec<W>, Fault> {
    let at = |reason| (field.at, reason);
    field.items.iter().map(|item| read(item).map_err(at)).collect()
}

fn database(item: &Item) -> Result<DatabaseWord, String> {
    if item.quoted {
        return Ok(DatabaseWord::Name(item.text.clone()));
    }
    Ok(match item.text.as_str() {
        "all" => DatabaseWord::All,
        "sameuser" => DatabaseWord::SameUser,
        "replication" => DatabaseWord::Replication,
        "samerole" | "samegroup" => {
            return Err(format!("{} is not supported: name the users", item.text));
        }
        _ => DatabaseWord::Name(name(item)?),
    })
}

fn user(item: &Item) -> Result<UserWord, String> {
    if item.is("all") { Ok(UserWord::All) } else { name(item).map(UserWord::Name) }
}

fn name(item: &Item) -> Result<String, String> {
    let beyond = if item.quoted { None } else { item.text.chars().next() };
    match beyond {
        Some('+') => {
            Err(format!("{}: members of roles are not known here: name the users", item.text))
        }
        Some('/') => {
            Err(format!("{}: regular expressions are not supported: name each", item.text))
        }
        Some('@') => Err(format!("{}: lists in files are not supported: put them here", item.text)),
        Some(_) | None => Ok(item.text.clone()),
    }
}

fn addresses<'f>(
    fields: &mut (impl Iterator<Item = &'f Field> + Clone),
    missing: impl Fn() -> Fault,
) -> Result<Addresses, Fault> {
    let field = fields.next().ok_or_else(missing)?;
    let fault = |reason: String| (field.at, reason);
    let Some(item) = field.single() else {
        return Err(fault("a rule has one address: write a rule for each".to_owned()));
    };
    if item.is("all") {
        return Ok(Addresses::All);
    }
    if let Ok(address) = item.text.parse::<IpAddr>() {
        // Its mask is the next field, unless that is the method already.
        let mask = fields.clone().next().and_then(Field::single).and_then(|m| m.text.parse().ok());
        let Some(mask) = mask else {
            return Err(fault(format!("{address} needs a mask: write {address}/bits")));
        };
        fields.next();
        return Network::with_mask(address, mask)
            .map(Addresses::In)
            .ok_or_else(|| fault(format!("{mask} is no mask for {address}")));
    }
    if let Some(network) = Network::parse(&item.text) {
        return Ok(Addresses::In(network));
    }
    Err(fault(match item.text.as_str() {
        "samehost" | "samenet" => format!("{} is not supported: write address/bits", item.text),
        text => format!("{text} is no address/bits; host names are not supported"),
    }))
}

fn method(field: &Field) -> Result<Method, Fault> {
    let word = field.single().map_or("", |item| &item.text);
    Ok(match word {
        "trust" => Method::Trust,
        "reject" => Method::Reject,
        "scram-sha-256" => Method::Scram,
        "md5" => Method::Md5,
        "password" => Method::Password,
        "cert" => Method::Cert,
        "peer" | "ident" | "gss" | "sspi" | "ldap" | "radius" | "pam" | "bsd" | "oauth" => {
            let reason = format!("method {word} is not supported: use scram-sha-256 or cert");
            return Err((field.at, reason));
        }
        _ => {
            let reason = format!(
                "{word:?} is no method: trust, reject, scram-sha-256, md5, password or cert"
            );
            return Err((field.at, reason));
        }
    })
}

fn read_option(rule: &mut Rule, field: &Field) -> Result<(), Fault> {
    let text = field.single().map_or("", |item| &item.text);
    match text.split_once('=') {
        Some(("clientcert", "verify-ca")) => rule.certificate = Certificate::Trusted,
        Some(("clientcert", "verify-full")) => rule.certificate = Certificate::OfUser,
        Some(("clientname", "CN")) => {}
        Some(("map", map)) if !map.is_empty() => rule.map = Some(map.to_owned()),
        Some(_) | None => {
            let reason = format!(
                "{text} is no option: clientcert=verify-ca, clientcert=verify-full, map=NAME"
            );
            return Err((field.at, reason));
        }
    }
    Ok(())
}

/// Most bytes of a file of rules.
const FILE_BYTES_MAX: usize = 1 << 20;
