//! What a database's URL has to be: TLS on any way that leaves this machine, and nothing that others might
//! log.

use std::{collections::BTreeMap, net::IpAddr};

use secrecy::{ExposeSecret, SecretString};
use url::Url;

/// The parameters that sqlx understands. It logs any other with its value, and `?pasword=…` is a slip away.
const PARAMETERS: [&str; 18] = [
    "sslmode",
    "ssl-mode",
    "sslrootcert",
    "ssl-root-cert",
    "ssl-ca",
    "sslcert",
    "ssl-cert",
    "sslkey",
    "ssl-key",
    "statement-cache-capacity",
    "host",
    "hostaddr",
    "port",
    "dbname",
    "user",
    "password",
    "application_name",
    "options",
];

/// `given`, with `sslmode=require` where it would else go beyond this machine without TLS or might. `name` is
/// what sentences call the URL. The variables are those that PostgreSQL's clients, sqlx too, fill a URL's
/// gaps from.
pub(super) fn checked(
    name: &str,
    given: &SecretString,
    env: &BTreeMap<String, String>,
    warnings: &mut Vec<String>,
) -> Result<SecretString, String> {
    let mut url = Url::parse(given.expose_secret())
        .ok()
        .filter(|url| matches!(url.scheme(), "postgres" | "postgresql"))
        .ok_or_else(|| {
            format!("{name} is not a PostgreSQL URL; give one such as postgres://user@host/database")
        })?;
    let (parameters, others): (Vec<_>, Vec<_>) = url
        .query_pairs()
        .map(|(key, value)| (key.into_owned(), value.into_owned()))
        .partition(|(key, _)| PARAMETERS.contains(&key.as_str()) || key.starts_with("options["));
    // With an @ in it, what follows the ? may well be the end of a password.
    let unsure = url.query().is_some_and(|query| query.contains('@'));
    let shown = |text: &str| if unsure { "(not repeated here)".to_owned() } else { format!("{text:?}") };
    for (key, _) in &others {
        let key = shown(key);
        warnings.push(format!("{name} has the parameter {key}, which means nothing here and is left out"));
    }
    let last = |names: &[&str]| {
        parameters
            .iter()
            .rev()
            .find(|(key, _)| names.contains(&key.as_str()))
            .map(|(_, value)| value.as_str())
    };
    let mode = last(&["sslmode", "ssl-mode"]).map(str::to_ascii_lowercase);
    if let Some(mode) = mode.as_deref().filter(|mode| !is_mode(mode)) {
        let mode = shown(mode);
        return Err(format!("{name} has sslmode {mode}; give require, verify-ca, verify-full or disable"));
    }
    let set = |variable: &str| env.get(variable).filter(|value| !value.is_empty()).map(String::as_str);
    // A sslmode that PostgreSQL's own variable asks for is not absent; a broken one is, for sqlx.
    let mode = mode.or_else(|| set("PGSSLMODE").map(str::to_ascii_lowercase).filter(|mode| is_mode(mode)));
    let host = last(&["host", "hostaddr"])
        .or_else(|| url.host_str().filter(|host| !host.is_empty()))
        .or_else(|| set("PGHOSTADDR"))
        .or_else(|| set("PGHOST"));
    let weak = matches!(mode.as_deref(), None | Some("allow" | "prefer"));
    let require = weak && !host.is_none_or(is_local);
    if require {
        warnings.push(format!(
            "{name} goes beyond this machine and does not insist on TLS: sslmode=require is used. \
             Say sslmode=verify-full (best) or, to do without, sslmode=disable"
        ));
    }
    if !require && others.is_empty() {
        return Ok(given.clone());
    }
    let kept =
        parameters.iter().filter(|(key, _)| !require || !matches!(key.as_str(), "sslmode" | "ssl-mode"));
    let query = url::form_urlencoded::Serializer::new(String::new())
        .extend_pairs(kept)
        .extend_pairs(require.then_some(("sslmode", "require")))
        .finish();
    url.set_query(Some(query.as_str()).filter(|query| !query.is_empty()));
    Ok(SecretString::from(String::from(url)))
}

fn is_mode(mode: &str) -> bool {
    matches!(mode, "disable" | "allow" | "prefer" | "require" | "verify-ca" | "verify-full")
}

/// A socket's path, also percent-encoded as in a URL, or a name or address of this machine.
fn is_local(host: &str) -> bool {
    let address = host.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>();
    host.starts_with('/')
        || host.to_ascii_lowercase().starts_with("%2f")
        || host.eq_ignore_ascii_case("localhost")
        || address.is_ok_and(|address| address.is_loopback())
}
