//! The directory: where it is, whose it is, what is in it.

use std::fs::{self, DirBuilder, Permissions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::{Path, PathBuf};

use super::LocalError;
use super::programs::RunAs;

/// Where root's database goes when the user that runs the server cannot reach the directory asked for.
const FOR_ROOT: &str = "/var/lib/rosterd/postgres";

/// The data directory and the names in it.
#[derive(Clone, Debug)]
pub(super) struct Place {
    dir: PathBuf,
}

impl Place {
    /// Decides on the directory, and makes nothing yet. The note says that it is another than was asked for.
    pub(super) fn choose(wanted: &Path, run_as: &RunAs) -> Result<(Self, Option<String>), LocalError> {
        Self::choose_between(wanted, Path::new(FOR_ROOT), run_as)
    }

    fn choose_between(
        wanted: &Path,
        instead: &Path,
        run_as: &RunAs,
    ) -> Result<(Self, Option<String>), LocalError> {
        let absolute =
            |path: &Path| std::path::absolute(path).map_err(|error| LocalError::files("find", path, error));
        let wanted = absolute(wanted)?;
        let RunAs::Ordinary(user) = run_as else {
            return Ok((Self { dir: wanted }.unless_anothers()?, None));
        };
        if run_as.may_enter(nearest_existing(&wanted)) {
            return Ok((Self { dir: wanted }.unless_anothers()?, None));
        }
        if !run_as.may_enter(nearest_existing(instead)) {
            return Err(LocalError::OutOfReach { user: user.name.clone(), dir: wanted });
        }
        let note = format!(
            "PostgreSQL does not run as root, and its user {} cannot enter {}: the private database is in {} instead",
            user.name,
            wanted.display(),
            instead.display(),
        );
        Ok((Self { dir: instead.to_owned() }.unless_anothers()?, Some(note)))
    }

    /// Makes the directory, for us alone; where another user runs the server, his group may pass through it.
    pub(super) fn create(self, run_as: &RunAs) -> Result<Self, LocalError> {
        let failed = |error| LocalError::files("make the directory", &self.dir, error);
        let mode = match run_as {
            RunAs::Ourselves => 0o700,
            RunAs::Ordinary(_) => 0o710,
        };
        if let Some(parent) = self.dir.parent() {
            create_reachable(parent, run_as).map_err(failed)?;
        }
        create_dir(&self.dir, mode).map_err(failed)?;
        run_as.give_to_group(&self.dir).map_err(failed)?;
        fs::set_permissions(&self.dir, Permissions::from_mode(mode)).map_err(failed)?;
        // The server reports its directory with symbolic links resolved; we recognise it by that.
        let dir = self.dir.canonicalize().map_err(failed)?;
        Ok(Self { dir })
    }

    /// Refuses a directory with other things in it: we would change its mode and, as root, its group.
    fn unless_anothers(self) -> Result<Self, LocalError> {
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

    /// The major version of the PostgreSQL that made the cluster; `None` while there is none.
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

/// Makes a directory with exactly this mode, whatever the umask, unless it is there.
pub(super) fn create_dir(dir: &Path, mode: u32) -> io::Result<()> {
    match DirBuilder::new().mode(0o700).create(dir) {
        Ok(()) => fs::set_permissions(dir, Permissions::from_mode(mode)),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists && dir.is_dir() => Ok(()),
        Err(error) => Err(error),
    }
}

/// Makes `dir` and what is missing above it; where another user runs the server, so that he can pass.
fn create_reachable(dir: &Path, run_as: &RunAs) -> io::Result<()> {
    if dir.is_dir() {
        return Ok(());
    }
    if let Some(parent) = dir.parent() {
        create_reachable(parent, run_as)?;
    }
    create_dir(dir, if matches!(run_as, RunAs::Ourselves) { 0o700 } else { 0o755 })
}

fn nearest_existing(path: &Path) -> &Path {
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
    fn a_directory_that_the_servers_user_cannot_enter_is_replaced_and_said_so() {
        let home = open_dir();
        fs::set_permissions(home.path(), Permissions::from_mode(0o700)).unwrap();
        let (wanted, var) = (home.path().join("postgres"), open_dir());
        let run_as = RunAs::choose().unwrap();
        let (place, note) = Place::choose_between(&wanted, &var.path().join("postgres"), &run_as).unwrap();
        match run_as {
            RunAs::Ordinary(user) => {
                assert_eq!(place.dir, var.path().join("postgres"));
                let note = note.unwrap();
                assert!(note.contains(&user.name) && note.contains(wanted.to_str().unwrap()), "{note}");
            }
            RunAs::Ourselves => assert!(place.dir == wanted && note.is_none()),
        }
        assert!(!wanted.exists());
    }

    #[test]
    fn a_directory_with_other_things_in_it_is_refused_and_left_alone() {
        let dir = open_dir();
        fs::write(dir.path().join("letter.txt"), "Dear Jane").unwrap();
        let error = Place::choose(dir.path(), &RunAs::choose().unwrap()).unwrap_err();
        assert!(matches!(error, LocalError::NotOurs { .. }), "{error}");
        assert_eq!(fs::metadata(dir.path()).unwrap().permissions().mode() & 0o777, 0o755);
    }

    #[test]
    fn the_directory_is_closed_to_others_and_the_way_to_it_is_not() {
        let dir = open_dir();
        let run_as = RunAs::choose().unwrap();
        let (place, _) = Place::choose(&dir.path().join("a/b/postgres"), &run_as).unwrap();
        let place = place.create(&run_as).unwrap();
        assert_eq!(fs::metadata(place.dir()).unwrap().permissions().mode() & 0o007, 0);
        assert!(run_as.may_enter(place.dir()));
    }
}
