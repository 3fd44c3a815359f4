//! The cluster and its password: made once, and whole or not at all.

use std::fs::{self, File};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::time::Duration;

use rand::distr::{Alphanumeric, SampleString};
use secrecy::{ExposeSecret, SecretString};

use super::LocalError;
use super::place::{Place, create_dir};
use super::programs::run;
use super::server::{HOST, NAME, Server};

/// How long initdb may take: a second as a rule, a minute on a slow disk that syncs every file.
const LIMIT: Duration = Duration::from_mins(3);
/// What a cluster in the making is called. A name of its own for each: an initdb orphaned by a `kill -9` may
/// still be writing into the last one.
const STAGING: &str = "server.new-";

/// Makes the cluster where there is none, and returns its password. Only in one's turn.
pub(super) async fn ensure(server: &Server) -> Result<SecretString, LocalError> {
    let place = &server.place;
    let exists = place.major()?.is_some();
    let password = match read_password(&place.pgpass()) {
        Some(password) => password,
        None if exists => {
            return Err(LocalError::PasswordLost { dir: place.dir().to_owned(), pgpass: place.pgpass() });
        }
        // Before the cluster: one that is found has its password beside it.
        None => write_password(&place.pgpass())
            .map_err(|error| LocalError::files("write the password file", &place.pgpass(), error))?,
    };
    if !exists {
        initialise(server, &password).await?;
    }
    Ok(password)
}

/// Runs initdb in a directory of another name, which gets the right one only when all is done and on disk.
async fn initialise(server: &Server, password: &SecretString) -> Result<(), LocalError> {
    let place = &server.place;
    remove_leftovers(place);
    let staging = place.dir().join(format!("{STAGING}{}", random(8)));
    let pwfile = staging.join("password");
    let failed = |error| LocalError::files("prepare", &staging, error);
    create_dir(&staging, 0o700).map_err(failed)?;
    write_private(&pwfile, password.expose_secret()).map_err(failed)?;
    server.run_as.give(&pwfile).map_err(failed)?;
    server.run_as.give(&staging).map_err(failed)?;

    // Not every platform has C.UTF-8, and initdb says so before it writes anything.
    if initdb(server, &staging, "C.UTF-8").await.is_err() {
        initdb(server, &staging, "C").await?;
    }
    fs::remove_file(&pwfile).map_err(failed)?;
    let sync = |dir: &Path| File::open(dir)?.sync_all();
    sync(&staging).map_err(failed)?;
    fs::rename(&staging, place.server()).map_err(failed)?;
    sync(place.dir()).map_err(failed)
}

async fn initdb(server: &Server, staging: &Path, locale: &str) -> Result<(), LocalError> {
    let mut command = server.run_as.command(server.binaries.program("initdb"));
    command.arg("--pgdata").arg(staging.join("data"));
    command.arg("--pwfile").arg(staging.join("password"));
    command.arg(format!("--username={NAME}")).arg(format!("--locale={locale}"));
    command.args(["--encoding=UTF8", "--auth=scram-sha-256", "--data-checksums", "--no-instructions"]);
    if !server.durable {
        command.arg("--no-sync");
    }
    run(command, LIMIT).await.map(drop)
}

/// What starts that were killed have left. What cannot be removed now is in nobody's way.
fn remove_leftovers(place: &Place) {
    let entries = fs::read_dir(place.dir()).into_iter().flatten().flatten();
    for entry in entries.filter(|entry| entry.file_name().to_string_lossy().starts_with(STAGING)) {
        let _ = fs::remove_dir_all(entry.path());
    }
}

/// The password out of libpq's format, `host:port:database:user:password`; ours holds no colon.
fn read_password(pgpass: &Path) -> Option<SecretString> {
    let text = fs::read_to_string(pgpass).ok()?;
    let password = text.trim_end().rsplit(':').next()?;
    (!password.is_empty()).then(|| password.into())
}

fn write_password(pgpass: &Path) -> io::Result<SecretString> {
    let password = SecretString::from(random(32));
    let staging = pgpass.with_extension("new");
    match fs::remove_file(&staging) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    // For any port and database: the server comes up on another port each time.
    write_private(&staging, &format!("{HOST}:*:*:{NAME}:{}\n", password.expose_secret()))?;
    fs::rename(&staging, pgpass)?;
    Ok(password)
}

/// Writes a new file that only its owner can read, down to the disk.
fn write_private(path: &Path, text: &str) -> io::Result<()> {
    let mut file = File::options().write(true).create_new(true).mode(0o600).open(path)?;
    file.write_all(text.as_bytes())?;
    file.sync_all()
}

/// `length` letters and digits that nobody guesses.
fn random(length: usize) -> String {
    Alphanumeric.sample_string(&mut rand::rng(), length)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn the_password_file_gives_back_its_password_and_is_ours_alone() {
        let dir = tempfile::tempdir().unwrap();
        let pgpass = dir.path().join("pgpass");
        fs::write(dir.path().join("pgpass.new"), "left by a start that was killed").unwrap();
        assert!(read_password(&pgpass).is_none());
        let written = write_password(&pgpass).unwrap();
        assert_eq!(read_password(&pgpass).unwrap().expose_secret(), written.expose_secret());
        assert_eq!(fs::metadata(&pgpass).unwrap().permissions().mode() & 0o777, 0o600);
    }
}
