//! `rosterd psql`: psql on rosterd's database.

use std::ffi::OsString;
use std::io::ErrorKind;
use std::path::Path;
use std::process::ExitCode;

use clap::Args;
use secrecy::{ExposeSecret, SecretString};
use tokio::process::Command;
use tokio::signal::unix::SignalKind;
use url::{Url, form_urlencoded};

use super::{output, signals};
use crate::app::{Exit, Failure, local_options};
use crate::settings::Settings;
use crate::store::StoreError;
use crate::store::local::LocalPostgres;
use crate::telemetry::chain;

#[derive(Args)]
pub(super) struct Options {
    /// Arguments for psql, after `--`
    #[arg(last = true, value_name = "ARGUMENT")]
    arguments: Vec<OsString>,
}

pub(super) async fn psql(settings: &Settings, options: Options) -> Result<ExitCode, Failure> {
    if let Some(url) = &settings.database.url {
        return open(Path::new("psql"), url, options).await;
    }
    let local = LocalPostgres::start(&local_options(settings)).await?;
    for note in local.notes() {
        output::message(note);
    }
    let ended = open(&local.psql(), local.url(), options).await;
    if let Err(error) = local.stop().await {
        tracing::warn!(error = %chain(&error), "could not stop the private PostgreSQL");
    }
    ended
}

async fn open(program: &Path, url: &SecretString, options: Options) -> Result<ExitCode, Failure> {
    let failed = |error: std::io::Error| match error.kind() {
        ErrorKind::NotFound => Failure::new(
            Exit::Settings,
            "psql is not installed or not in PATH; install PostgreSQL's client programs (Debian, Ubuntu: `apt install \
             postgresql-client`; Fedora, RHEL: `dnf install postgresql`; macOS: `brew install libpq`)",
        ),
        _ => Failure::new(Exit::Internal, format!("cannot run psql: {error}")),
    };
    let mut interrupt = signals::listen(SignalKind::interrupt())?;
    let mut terminate = signals::listen(SignalKind::terminate())?;
    let mut hangup = signals::listen(SignalKind::hangup())?;
    let mut command = Command::new(program);
    let (url, password) = libpq_url(url)?;
    command.arg(format!("--dbname={url}")).args(options.arguments).kill_on_drop(true);
    // psql and the programs that it starts, such as a pager, get none of rosterd's secrets.
    for (name, _) in std::env::vars_os() {
        let text = name.to_string_lossy();
        if text.starts_with("HARVEST_") || text.starts_with("ROSTERD_") || text.starts_with("DATABASE_URL") {
            command.env_remove(&name);
        }
    }
    // These variables override the host of the URL.
    command.env_remove("PGHOSTADDR").env_remove("PGSERVICE");
    if let Some(password) = password {
        command.env("PGPASSWORD", password.expose_secret());
    }
    let mut child = command.spawn().map_err(failed)?;
    let ended = loop {
        tokio::select! {
            ended = child.wait() => break ended.map_err(failed)?,
            // Ctrl-C reaches psql too, which cancels its statement and continues.
            _ = interrupt.recv() => {}
            _ = terminate.recv() => child.start_kill().map_err(failed)?,
            _ = hangup.recv() => child.start_kill().map_err(failed)?,
        }
    };
    let code = ended.code().and_then(|code| u8::try_from(code).ok());
    Ok(code.map_or_else(|| Exit::Internal.into(), ExitCode::from))
}

/// Returns the URL in libpq's form without the password, and the password.
fn libpq_url(url: &SecretString) -> Result<(String, Option<SecretString>), Failure> {
    let mut url = Url::parse(url.expose_secret()).map_err(|_| StoreError::Url)?;
    let mut password = url.password().map(percent_decoded);
    let mut parameters = Vec::new();
    let mut options = String::new();
    for (key, value) in url.query_pairs() {
        // sqlx accepts other names for some of libpq's parameters.
        let key = match &*key {
            "password" => {
                password = Some(value.into_owned());
                continue;
            }
            "statement-cache-capacity" => continue,
            "ssl-mode" => "sslmode",
            "ssl-root-cert" | "ssl-ca" => "sslrootcert",
            "ssl-cert" => "sslcert",
            "ssl-key" => "sslkey",
            "options" => {
                options = format!("{options} {value}");
                continue;
            }
            key => match key.strip_prefix("options[").and_then(|key| key.strip_suffix(']')) {
                Some(option) => {
                    options = format!("{options} -c {option}={value}");
                    continue;
                }
                None => key,
            },
        };
        parameters.push((key.to_owned(), value.into_owned()));
    }
    let is = |name: &str, wanted: &str| parameters.iter().any(|(key, value)| key == name && value == wanted);
    // By default sqlx trusts the system's certificate authorities, and libpq a file in the home directory.
    let has_root = parameters.iter().any(|(key, _)| key == "sslrootcert");
    if is("sslmode", "verify-full") && !has_root && std::env::var_os("PGSSLROOTCERT").is_none() {
        parameters.push(("sslrootcert".to_owned(), "system".to_owned()));
    }
    if !options.is_empty() {
        parameters.push(("options".to_owned(), options.trim().to_owned()));
    }
    let query = form_urlencoded::Serializer::new(String::new()).extend_pairs(parameters).finish();
    // libpq does not decode + as a space.
    let query = query.replace('+', "%20");
    url.set_query(Some(query.as_str()).filter(|query| !query.is_empty()));
    if url.password().is_some() {
        url.set_password(None).map_err(|()| StoreError::Url)?;
    }
    Ok((url.into(), password.map(SecretString::from)))
}

fn percent_decoded(text: &str) -> String {
    let form = format!("={}", text.replace('+', "%2B").replace('&', "%26"));
    form_urlencoded::parse(form.as_bytes()).map(|(_, value)| value.into_owned()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn libpq_url_has_no_password_and_only_libpq_parameters() {
        for (given, url, password) in [
            ("postgres://u:p%40+%26w@db:5433/x", "postgres://u@db:5433/x", Some("p@+&w")),
            (
                "postgres://u@db/x?password=p%2Bw&sslmode=require",
                "postgres://u@db/x?sslmode=require",
                Some("p+w"),
            ),
            ("postgres:///x?host=/tmp&statement-cache-capacity=9", "postgres:///x?host=%2Ftmp", None),
            (
                "postgres://db/x?ssl-mode=verify-ca&ssl-ca=/a%20b.pem&options[search_path]=y",
                "postgres://db/x?sslmode=verify-ca&sslrootcert=%2Fa%20b.pem&options=-c%20search_path%3Dy",
                None,
            ),
        ] {
            let (is, secret) = libpq_url(&SecretString::from(given)).unwrap();
            assert_eq!((is.as_str(), secret.as_ref().map(ExposeSecret::expose_secret)), (url, password));
        }
    }
}
