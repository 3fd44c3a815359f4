//! The cluster and its password: created once, and completely or not at all.

use std::fs::{self, File};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::time::Duration;

use rand::distr::{Alphanumeric, SampleString};
use secrecy::{ExposeSecret, SecretString};

use super::data_dir::{DataDir, create_dir};
use super::error::LocalError;
use super::process::run;
use super::server::{HOST, NAME, PostgresServer};

/// The longest run of initdb: usually a second, a minute on a slow disk that syncs each file.
const INITDB_LIMIT: Duration = Duration::from_mins(3);
/// The prefix of the temporary name of a new cluster. Each attempt uses a different name, because an initdb whose
/// rosterd was killed may still be writing.
const STAGING_PREFIX: &str = "server.new-";

/// Creates the cluster if there is none, and returns its password. The caller holds the turn.
pub(super) async fn ensure(server: &PostgresServer) -> Result<SecretString, LocalError> {
    let data_dir = &server.data_dir;
    let exists = data_dir.major()?.is_some();
    let password = match read_password(&data_dir.pgpass()) {
        Some(password) => password,
        None if exists => {
            return Err(LocalError::PasswordLost {
                dir: data_dir.dir().to_owned(),
                pgpass: data_dir.pgpass(),
            });
        }
        // Written before the cluster is created, so that each cluster has its password.
        None => write_password(&data_dir.pgpass())
            .map_err(|error| LocalError::files("write the password file", &data_dir.pgpass(), error))?,
    };
    if !exists {
        initialise(server, &password).await?;
    }
    Ok(password)
}

/// Runs initdb in a directory with a temporary name, and renames it when all files are on disk.
async fn initialise(server: &PostgresServer, password: &SecretString) -> Result<(), LocalError> {
    let data_dir = &server.data_dir;
    remove_leftovers(data_dir);
    let staging = data_dir.dir().join(format!("{STAGING_PREFIX}{}", random(8)));
    let pwfile = staging.join("password");
    let failed = |error| LocalError::files("prepare", &staging, error);
    create_dir(&staging, 0o700).map_err(failed)?;
    write_private(&pwfile, password.expose_secret()).map_err(failed)?;
    server.run_as.set_owner(&pwfile).map_err(failed)?;
    server.run_as.set_owner(&staging).map_err(failed)?;

    // Not every platform has C.UTF-8. Without it, initdb fails before it writes a file.
    if initdb(server, &staging, "C.UTF-8").await.is_err() {
        initdb(server, &staging, "C").await?;
    }
    fs::remove_file(&pwfile).map_err(failed)?;
    let sync = |dir: &Path| File::open(dir)?.sync_all();
    sync(&staging).map_err(failed)?;
    fs::rename(&staging, data_dir.server()).map_err(failed)?;
    sync(data_dir.dir()).map_err(failed)
}

async fn initdb(server: &PostgresServer, staging: &Path, locale: &str) -> Result<(), LocalError> {
    let mut command = server.run_as.command(server.binaries.program("initdb"));
    command.arg("--pgdata").arg(staging.join("data"));
    command.arg("--pwfile").arg(staging.join("password"));
    command.arg(format!("--username={NAME}")).arg(format!("--locale={locale}"));
    command.args(["--encoding=UTF8", "--auth=scram-sha-256", "--data-checksums", "--no-instructions"]);
    if !server.durable {
        command.arg("--no-sync");
    }
    run(command, INITDB_LIMIT).await.map(drop)
}

/// Removes the directories of starts that were killed. Failures are ignored, because each start uses a new name.
fn remove_leftovers(data_dir: &DataDir) {
    let entries = fs::read_dir(data_dir.dir()).into_iter().flatten().flatten();
    for entry in entries.filter(|entry| entry.file_name().to_string_lossy().starts_with(STAGING_PREFIX)) {
        let _ = fs::remove_dir_all(entry.path());
    }
}

/// Reads the password from libpq's format, `host:port:database:user:password`. rosterd's passwords have no colon.
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
    // For any port and database, because each start of the server uses another port.
    write_private(&staging, &format!("{HOST}:*:*:{NAME}:{}\n", password.expose_secret()))?;
    fs::rename(&staging, pgpass)?;
    Ok(password)
}

/// Writes a new file that only its owner can read, and syncs it to the disk.
fn write_private(path: &Path, text: &str) -> io::Result<()> {
    let mut file = File::options().write(true).create_new(true).mode(0o600).open(path)?;
    file.write_all(text.as_bytes())?;
    file.sync_all()
}

/// `length` random letters and digits.
fn random(length: usize) -> String {
    Alphanumeric.sample_string(&mut rand::rng(), length)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn password_file_returns_its_password_and_only_its_owner_can_read_it() {
        let dir = tempfile::tempdir().unwrap();
        let pgpass = dir.path().join("pgpass");
        fs::write(dir.path().join("pgpass.new"), "from a start that was killed").unwrap();
        assert!(read_password(&pgpass).is_none());
        let written = write_password(&pgpass).unwrap();
        assert_eq!(read_password(&pgpass).unwrap().expose_secret(), written.expose_secret());
        assert_eq!(fs::metadata(&pgpass).unwrap().permissions().mode() & 0o777, 0o600);
    }
}
