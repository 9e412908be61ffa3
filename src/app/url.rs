//! Reads the connection URLs of the command line.
//!
//! Understands the part of libpq's URLs that names one server; an unknown
//! parameter is refused rather than ignored. Never repeats a URL in an error:
//! it may hold a password.
//!
//! Source: PostgreSQL manual, "Connection URIs".

use std::fmt;

use crate::shardmap::{Endpoint, Tls, TlsMode};
use crate::types::Secret;

/// Where a database is and who logs in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BackendUrl {
    /// Host name, address, or absolute folder of a Unix socket; and the port.
    pub endpoint: Endpoint,
    /// The role, if the URL names one.
    pub user: Option<String>,
    /// Its password, if the URL holds one.
    pub password: Option<Secret>,
    /// The database, if the URL names one.
    pub database: Option<String>,
    /// How the connection is encrypted.
    pub tls: Tls,
}

impl BackendUrl {
    /// The server that `text` names.
    ///
    /// # Errors
    /// Another scheme, several hosts, a parameter that is not known, or a part
    /// that can't be read.
    pub fn parse(text: &str) -> Result<Self, UrlError> {
        let rest = text
            .strip_prefix("postgres://")
            .or_else(|| text.strip_prefix("postgresql://"))
            .ok_or(UrlError::Scheme)?;
        let (rest, query) = rest.split_once('?').map_or((rest, ""), |(a, b)| (a, b));
        let (authority, database) = rest.split_once('/').map_or((rest, ""), |(a, b)| (a, b));
        let (login, place) = authority.rsplit_once('@').map_or(("", authority), |(a, b)| (a, b));
        let (user, password) =
            login.split_once(':').map_or((login, None), |(user, password)| (user, Some(password)));
        let (host, port) = host_and_port(place)?;
        let mut url = Self {
            endpoint: Endpoint::new(&decoded(host, "host")?, port),
            user: given(user, "user")?,
            password: password.map(|p| decoded(p, "password")).transpose()?.map(Secret::new),
            database: given(database, "database")?,
            tls: Tls { mode: TlsMode::Prefer, root_cert: None },
        };
        for pair in query.split('&').filter(|pair| !pair.is_empty()) {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            url.set(name, &decoded(value, "parameter")?)?;
        }
        if url.endpoint.host.is_empty() {
            return Err(UrlError::Part { part: "host" });
        }
        Ok(url)
    }

    fn set(&mut self, name: &str, value: &str) -> Result<(), UrlError> {
        match name {
            "host" => value.clone_into(&mut self.endpoint.host),
            "port" => self.endpoint.port = port_number(value)?,
            "user" => self.user = Some(value.to_owned()),
            "password" => self.password = Some(Secret::new(value.to_owned())),
            "dbname" => self.database = Some(value.to_owned()),
            "sslrootcert" => self.tls.root_cert = Some(value.to_owned()),
            "sslmode" => self.tls.mode = tls_mode(value)?,
            _ => return Err(UrlError::Parameter { name: name.to_owned() }),
        }
        Ok(())
    }
}

fn tls_mode(value: &str) -> Result<TlsMode, UrlError> {
    match value {
        "disable" => Ok(TlsMode::Disable),
        "allow" | "prefer" => Ok(TlsMode::Prefer),
        "require" => Ok(TlsMode::Require),
        "verify-full" => Ok(TlsMode::VerifyFull),
        _ => Err(UrlError::SslMode),
    }
}

fn host_and_port(place: &str) -> Result<(&str, u16), UrlError> {
    if place.contains(',') {
        return Err(UrlError::SeveralHosts);
    }
    let (host, port) = match place.strip_prefix('[') {
        Some(inner) => {
            let (host, after) = inner.split_once(']').ok_or(UrlError::Part { part: "host" })?;
            (host, after.strip_prefix(':').unwrap_or(""))
        }
        None => place.split_once(':').unwrap_or((place, "")),
    };
    let port = if port.is_empty() { PORT_DEFAULT } else { port_number(port)? };
    Ok((host, port))
}

fn port_number(text: &str) -> Result<u16, UrlError> {
    text.parse().ok().filter(|port| *port > 0).ok_or(UrlError::Part { part: "port" })
}

fn given(text: &str, part: &'static str) -> Result<Option<String>, UrlError> {
    if text.is_empty() { Ok(None) } else { decoded(text, part).map(Some) }
}

/// `text` with its percent signs resolved.
fn decoded(text: &str, part: &'static str) -> Result<String, UrlError> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        if byte != b'%' {
            bytes.push(byte);
            continue;
        }
        let digit = |byte: Option<u8>| char::from(byte?).to_digit(16);
        let pair = digit(rest.next()).zip(digit(rest.next()));
        let value = pair.and_then(|(high, low)| u8::try_from(high * 16 + low).ok());
        bytes.push(value.filter(|byte| *byte != 0).ok_or(UrlError::Part { part })?);
    }
    String::from_utf8(bytes).map_err(|_| UrlError::Part { part })
}

/// Why a text is no URL of a server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum UrlError {
    /// Another scheme.
    Scheme,
    /// More than one host.
    SeveralHosts,
    /// A part that can't be read.
    Part {
        /// Which.
        part: &'static str,
    },
    /// A parameter that is not known.
    Parameter {
        /// Its name.
        name: String,
    },
    /// An `sslmode` that is not supported.
    SslMode,
}

impl fmt::Display for UrlError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Scheme => f.write_str("must begin with postgres:// or postgresql://"),
            Self::SeveralHosts => f.write_str(
                "names several hosts: give the primary as --backend and each replica as --replica",
            ),
            Self::Part { part } => write!(f, "has a {part} that can't be read"),
            Self::Parameter { name } => write!(
                f,
                "has the parameter {name:?}; known are host, port, user, password, dbname, sslmode, sslrootcert"
            ),
            Self::SslMode => {
                f.write_str("has an sslmode that is none of disable, prefer, require, verify-full")
            }
        }
    }
}

impl std::error::Error for UrlError {}

const PORT_DEFAULT: u16 = 5432;

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> BackendUrl {
        BackendUrl::parse(text).unwrap()
    }

    #[test]
    fn all_parts_are_read() {
        let url = parse(
            "postgres://app:p%40ss@db.example:6000/shop?sslmode=verify-full&sslrootcert=/ca.pem",
        );
        assert_eq!(url.endpoint, Endpoint::new("db.example", 6000));
        assert_eq!(url.user.as_deref(), Some("app"));
        assert_eq!(url.password.unwrap().expose(), "p@ss");
        assert_eq!(url.database.as_deref(), Some("shop"));
        assert_eq!(url.tls.mode, TlsMode::VerifyFull);
        assert_eq!(url.tls.root_cert.as_deref(), Some("/ca.pem"));
    }

    #[test]
    fn what_is_left_out_has_a_default_or_is_absent() {
        let url = parse("postgresql://db");
        assert_eq!(url.endpoint, Endpoint::new("db", 5432));
        assert_eq!((url.user, url.password, url.database), (None, None, None));
        assert_eq!(url.tls.mode, TlsMode::Prefer);
    }

    #[test]
    fn sockets_and_addresses_are_hosts() {
        assert_eq!(parse("postgres://%2Frun%2Fpg:7000/d").endpoint, Endpoint::new("/run/pg", 7000));
        assert_eq!(
            parse("postgres:///d?host=/run/pg&port=7000").endpoint,
            Endpoint::new("/run/pg", 7000)
        );
        assert_eq!(parse("postgres://[::1]:7000/d").endpoint, Endpoint::new("::1", 7000));
    }

    #[test]
    fn doubtful_urls_are_refused_without_being_repeated() {
        for text in [
            "mysql://u:sesame@h/d",
            "u:sesame@h/d",
            "postgres://u:sesame@h:0/d",
            "postgres://u:sesame@h:70000/d",
            "postgres://u:sesame@a,b/d",
            "postgres://u:sesame@/d",
            "postgres://u:sesame%zz@h/d",
            "postgres://u:sesame%00@h/d",
            "postgres://u:sesame@h/d?sslmode=verify-ca",
            "postgres://u:sesame@h/d?options=-c",
        ] {
            let error = BackendUrl::parse(text).unwrap_err().to_string();
            assert!(!error.contains("sesame"), "{error}");
        }
    }
}
