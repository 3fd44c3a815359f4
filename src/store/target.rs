//! Which server, database and user the settings name, as error messages may show them.

use std::fmt;

use sqlx::postgres::PgConnectOptions;
use url::Url;

use super::tls::TlsFiles;

/// The server, the database and the user that the settings name; never the password.
#[derive(Clone)]
pub struct Target {
    /// Host and port, or the path of the socket.
    server: String,
    /// The host, or the directory of the socket.
    host: String,
    database: String,
    user: String,
    /// False if the URL has an @ after its host: then each part may be a piece of a password that is not encoded.
    pub(super) is_shown: bool,
    pub(super) tls_files: TlsFiles,
}

impl Target {
    pub(super) fn new(url: &str, options: &PgConnectOptions) -> Self {
        let url = Url::parse(url).ok();
        let is_shown = url.as_ref().is_some_and(|url| {
            ![url.path(), url.query().unwrap_or_default(), url.fragment().unwrap_or_default()]
                .concat()
                .contains('@')
        });
        let (port, user) = (options.get_port(), options.get_username());
        let socket = options.get_socket().map(|directory| directory.display().to_string());
        let host = socket.unwrap_or_else(|| options.get_host().to_owned());
        let server =
            if host.starts_with('/') { format!("{host}/.s.PGSQL.{port}") } else { format!("{host}:{port}") };
        Self {
            server,
            host,
            database: options.get_database().unwrap_or(user).to_owned(),
            user: user.to_owned(),
            is_shown,
            tls_files: TlsFiles::new(url.as_ref(), options.get_ssl_mode()),
        }
    }

    /// The database as sentences and SQL statements name it.
    pub(super) fn database(&self) -> String {
        if self.is_shown { format!("{:?}", self.database) } else { "of database.url".to_owned() }
    }

    /// The user as sentences and SQL statements name it.
    pub fn user(&self) -> String {
        if self.is_shown { format!("{:?}", self.user) } else { "of database.url".to_owned() }
    }

    /// The host, as a certificate names it, or the directory of its socket; `HOST` if no part may be shown.
    pub fn host(&self) -> &str {
        if self.is_shown { &self.host } else { "HOST" }
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if !self.is_shown {
            return f.write_str(
                "the server of database.url (not named here: the URL has an @ behind its host, which may belong to a \
                 password; write it as %40)",
            );
        }
        write!(f, "PostgreSQL at {} (database {:?}, user {:?})", self.server, self.database, self.user)
    }
}

impl fmt::Debug for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use std::str::FromStr as _;

    use super::*;

    fn target(url: &str) -> String {
        Target::new(url, &PgConnectOptions::from_str(url).expect("a URL")).to_string()
    }

    #[test]
    fn target_names_server_database_and_user_but_no_password() {
        let named = target("postgres://jo:hunter2@db.example.com:5433/roster");
        assert_eq!(named, r#"PostgreSQL at db.example.com:5433 (database "roster", user "jo")"#);
        let socket = target("postgres://jo:hunter2@%2Frun%2Fpostgresql/roster");
        assert_eq!(socket, r#"PostgreSQL at /run/postgresql/.s.PGSQL.5432 (database "roster", user "jo")"#);
    }

    #[test]
    fn target_hides_every_part_if_the_password_may_have_spilled_into_it() {
        for url in [
            "postgres://jo:12/canary@db/roster",
            "postgres://jo:12?canary@db/roster",
            "postgres://jo:12#canary@db",
        ] {
            let named = target(url);
            assert!(!named.contains("canary") && !named.contains("12") && named.contains("%40"), "{named}");
        }
    }
}
