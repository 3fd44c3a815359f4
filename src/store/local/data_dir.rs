//! The data directory: its path, its owner, and the names of its files.

use std::fs::{self, DirBuilder, Permissions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::{Path, PathBuf};

use super::error::LocalError;
use super::process::RunAs;

/// The directory that root uses if the server's user cannot enter the configured directory.
const FALLBACK_FOR_ROOT: &str = "/var/lib/rosterd/postgres";

#[derive(Clone, Debug)]
pub(super) struct DataDir {
    dir: PathBuf,
}

impl DataDir {
    /// Chooses the directory and creates nothing yet. Returns a note if it is not the configured directory.
    pub(super) fn choose(configured: &Path, run_as: &RunAs) -> Result<(Self, Option<String>), LocalError> {
        Self::choose_between(configured, Path::new(FALLBACK_FOR_ROOT), run_as)
    }

    fn choose_between(
        configured: &Path,
        fallback: &Path,
        run_as: &RunAs,
    ) -> Result<(Self, Option<String>), LocalError> {
        let absolute =
            |path: &Path| std::path::absolute(path).map_err(|error| LocalError::files("find", path, error));
        let configured = absolute(configured)?;
        let RunAs::Other(user) = run_as else {
            return Ok((Self { dir: configured }.refuse_foreign()?, None));
        };
        if run_as.may_enter(nearest_existing(&configured)) {
            return Ok((Self { dir: configured }.refuse_foreign()?, None));
        }
        if !run_as.may_enter(nearest_existing(fallback)) {
            return Err(LocalError::OutOfReach { user: user.name.clone(), dir: configured });
        }
        let note = format!(
            "PostgreSQL does not run as root, and its user {} cannot enter {}; the private database is in {} instead",
            user.name,
            configured.display(),
            fallback.display(),
        );
        Ok((Self { dir: fallback.to_owned() }.refuse_foreign()?, Some(note)))
    }

    /// Creates the directory with access for its owner only. If another user runs the server, that user's group may
    /// enter it.
    pub(super) fn create(self, run_as: &RunAs) -> Result<Self, LocalError> {
        let failed = |error| LocalError::files("create the directory", &self.dir, error);
        let mode = match run_as {
            RunAs::CurrentUser => 0o700,
            RunAs::Other(_) => 0o710,
        };
        if let Some(parent) = self.dir.parent() {
            create_reachable(parent, run_as).map_err(failed)?;
        }
        create_dir(&self.dir, mode).map_err(failed)?;
        run_as.set_group(&self.dir).map_err(failed)?;
        fs::set_permissions(&self.dir, Permissions::from_mode(mode)).map_err(failed)?;
        // The server reports its directory with symbolic links resolved, and `serves` compares it with this path.
        let dir = self.dir.canonicalize().map_err(failed)?;
        Ok(Self { dir })
    }

    /// Refuses a directory with other files, because rosterd would change its mode and, as root, its group.
    fn refuse_foreign(self) -> Result<Self, LocalError> {
        let mut entries = match fs::read_dir(&self.dir) {
            Ok(entries) => entries,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(self),
            Err(error) => return Err(LocalError::files("read the directory", &self.dir, error)),
        };
        if entries.next().is_some() && !self.users().exists() {
            return Err(LocalError::NotOurs { dir: self.dir });
        }
        Ok(self)
    }

    /// The major version of the PostgreSQL that created the cluster; `None` without a cluster.
    pub(super) fn major(&self) -> Result<Option<u32>, LocalError> {
        let path = self.data().join("PG_VERSION");
        let failed = |error| LocalError::files("read", &path, error);
        match fs::read_to_string(&path) {
            Ok(text) => text.trim().parse().map(Some).map_err(|error| failed(io::Error::other(error))),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(failed(error)),
        }
    }

    pub(super) fn dir(&self) -> &Path {
        &self.dir
    }

    pub(super) fn turn(&self) -> PathBuf {
        self.dir.join("turn")
    }

    pub(super) fn users(&self) -> PathBuf {
        self.dir.join("users")
    }

    pub(super) fn pgpass(&self) -> PathBuf {
        self.dir.join("pgpass")
    }

    pub(super) fn programs(&self) -> PathBuf {
        self.dir.join("programs")
    }

    pub(super) fn server(&self) -> PathBuf {
        self.dir.join("server")
    }

    pub(super) fn data(&self) -> PathBuf {
        self.server().join("data")
    }

    pub(super) fn log(&self) -> PathBuf {
        self.server().join("log")
    }
}

/// Creates a directory with exactly this mode, regardless of the umask, unless it exists.
pub(super) fn create_dir(dir: &Path, mode: u32) -> io::Result<()> {
    match DirBuilder::new().mode(0o700).create(dir) {
        Ok(()) => fs::set_permissions(dir, Permissions::from_mode(mode)),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists && dir.is_dir() => Ok(()),
        Err(error) => Err(error),
    }
}

/// Creates `dir` and its missing parents. If another user runs the server, that user may enter them.
pub(super) fn create_reachable(dir: &Path, run_as: &RunAs) -> io::Result<()> {
    if dir.is_dir() {
        return Ok(());
    }
    if let Some(parent) = dir.parent() {
        create_reachable(parent, run_as)?;
    }
    create_dir(dir, if matches!(run_as, RunAs::CurrentUser) { 0o700 } else { 0o755 })
}

pub(super) fn nearest_existing(path: &Path) -> &Path {
    path.ancestors().find(|ancestor| ancestor.exists()).unwrap_or(Path::new("/"))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A directory that every user can enter.
    fn open_dir() -> tempfile::TempDir {
        tempfile::Builder::new().permissions(Permissions::from_mode(0o755)).tempdir().unwrap()
    }

    #[test]
    fn data_dir_that_the_servers_user_cannot_enter_is_replaced_with_a_note() {
        let home = open_dir();
        fs::set_permissions(home.path(), Permissions::from_mode(0o700)).unwrap();
        let (configured, var) = (home.path().join("postgres"), open_dir());
        let run_as = RunAs::choose().unwrap();
        let (data_dir, note) =
            DataDir::choose_between(&configured, &var.path().join("postgres"), &run_as).unwrap();
        match run_as {
            RunAs::Other(user) => {
                assert_eq!(data_dir.dir, var.path().join("postgres"));
                let note = note.unwrap();
                assert!(note.contains(&user.name) && note.contains(configured.to_str().unwrap()), "{note}");
            }
            RunAs::CurrentUser => assert!(data_dir.dir == configured && note.is_none()),
        }
        assert!(!configured.exists());
    }

    #[test]
    fn data_dir_with_other_files_is_refused_and_unchanged() {
        let dir = open_dir();
        fs::write(dir.path().join("letter.txt"), "Dear Jane").unwrap();
        let error = DataDir::choose(dir.path(), &RunAs::choose().unwrap()).unwrap_err();
        assert!(matches!(error, LocalError::NotOurs { .. }), "{error}");
        assert_eq!(fs::metadata(dir.path()).unwrap().permissions().mode() & 0o777, 0o755);
    }

    #[test]
    fn data_dir_is_closed_to_others_and_its_parents_are_not() {
        let dir = open_dir();
        let run_as = RunAs::choose().unwrap();
        let (data_dir, _) = DataDir::choose(&dir.path().join("a/b/postgres"), &run_as).unwrap();
        let data_dir = data_dir.create(&run_as).unwrap();
        assert_eq!(fs::metadata(data_dir.dir()).unwrap().permissions().mode() & 0o007, 0);
        assert!(run_as.may_enter(data_dir.dir()));
    }
}
