//! Rules for the URL of the database: TLS to remote hosts, and no parameter that sqlx would log with its value.

use std::{collections::BTreeMap, net::IpAddr};

use secrecy::{ExposeSecret, SecretString};
use url::Url;

use super::findings::Findings;

/// The parameters that sqlx understands. It logs any other with its value, which may be a secret: `?pasword=…`.
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
const MODE: [&str; 2] = ["sslmode", "ssl-mode"];

type Parameters = Vec<(String, String)>;

/// `given` without unknown parameters, and with `sslmode=require` if it would allow a remote connection without TLS.
/// `name` stands for the URL in sentences. `env` may contain PostgreSQL's own variables, which sqlx reads too.
pub(super) fn checked(
    name: &str,
    given: &SecretString,
    env: &BTreeMap<String, String>,
    findings: &mut Findings,
) -> Result<SecretString, String> {
    let mut url = Url::parse(given.expose_secret())
        .ok()
        .filter(|url| matches!(url.scheme(), "postgres" | "postgresql"))
        .ok_or_else(|| {
            format!("{name} is not a PostgreSQL URL; give one such as postgres://user@host/database")
        })?;
    let (mut parameters, unknown): (Parameters, Parameters) = url
        .query_pairs()
        .map(|(key, value)| (key.into_owned(), value.into_owned()))
        .partition(|(key, _)| PARAMETERS.contains(&key.as_str()) || key.starts_with("options["));
    // The query of a URL with an @ in it may be the end of a password that contains a question mark.
    let may_be_secret = url.query().is_some_and(|query| query.contains('@'));
    let shown = |text: &str| if may_be_secret { "(not shown)".to_owned() } else { format!("{text:?}") };
    for (key, _) in &unknown {
        let key = shown(key);
        findings
            .warn(format!("{name} has the parameter {key}, which rosterd does not know; rosterd ignores it"));
    }
    let mode = last(&parameters, &MODE).map(str::to_ascii_lowercase);
    if let Some(mode) = mode.as_deref().filter(|mode| !is_mode(mode)) {
        let mode = shown(mode);
        return Err(format!("{name} has sslmode {mode}; give require, verify-ca, verify-full or disable"));
    }
    let require = allows_remote_without_tls(&url, &parameters, mode, env);
    if require {
        findings.warn(format!(
            "{name} does not require TLS to a remote host; rosterd uses sslmode=require. Set sslmode=verify-full \
             (recommended), or sslmode=disable to connect without TLS"
        ));
        parameters.retain(|(key, _)| !MODE.contains(&key.as_str()));
        parameters.push(("sslmode".to_owned(), "require".to_owned()));
    } else if unknown.is_empty() {
        return Ok(given.clone());
    }
    let query = url::form_urlencoded::Serializer::new(String::new()).extend_pairs(parameters).finish();
    url.set_query(Some(query.as_str()).filter(|query| !query.is_empty()));
    Ok(SecretString::from(String::from(url)))
}

/// A SHA-256 in hexadecimal digits.
pub(super) fn sha256(text: &str) -> Result<String, String> {
    let is_valid = text.len() == 64 && text.bytes().all(|byte| byte.is_ascii_hexdigit());
    let advice = || "give the 64 hexadecimal digits that sha256sum prints".to_owned();
    is_valid.then(|| text.to_ascii_lowercase()).ok_or_else(advice)
}

fn allows_remote_without_tls(
    url: &Url,
    parameters: &Parameters,
    mode: Option<String>,
    env: &BTreeMap<String, String>,
) -> bool {
    let set = |variable: &str| env.get(variable).filter(|value| !value.is_empty()).map(String::as_str);
    // sqlx ignores a PGSSLMODE that is not a mode.
    let mode = mode.or_else(|| set("PGSSLMODE").map(str::to_ascii_lowercase).filter(|mode| is_mode(mode)));
    let host = last(parameters, &["host", "hostaddr"])
        .or_else(|| url.host_str().filter(|host| !host.is_empty()))
        .or_else(|| set("PGHOSTADDR"))
        .or_else(|| set("PGHOST"));
    matches!(mode.as_deref(), None | Some("allow" | "prefer")) && !host.is_none_or(is_local)
}

/// The last value that one of `names` has; sqlx uses the last one too.
fn last<'p>(parameters: &'p Parameters, names: &[&str]) -> Option<&'p str> {
    parameters.iter().rev().find(|(key, _)| names.contains(&key.as_str())).map(|(_, value)| value.as_str())
}

fn is_mode(mode: &str) -> bool {
    matches!(mode, "disable" | "allow" | "prefer" | "require" | "verify-ca" | "verify-full")
}

/// Whether `host` is the path of a socket (in a URL it is percent-encoded), or a name or address of this machine.
fn is_local(host: &str) -> bool {
    let address = host.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>();
    host.starts_with('/')
        || host.to_ascii_lowercase().starts_with("%2f")
        || host.eq_ignore_ascii_case("localhost")
        || address.is_ok_and(|address| address.is_loopback())
}
