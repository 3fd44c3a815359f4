//! Machines made of shell scripts.

use std::fs::Permissions;
use std::os::unix::fs::{PermissionsExt, symlink};

use super::*;

/// A root directory with programs in it that say their version and no more.
struct Machine {
    root: tempfile::TempDir,
    run_as: RunAs,
}

impl Machine {
    fn new() -> Self {
        // Open to all: as root we run the programs as somebody else.
        let root = tempfile::Builder::new().permissions(Permissions::from_mode(0o755)).tempdir().unwrap();
        Self { root, run_as: RunAs::choose().unwrap() }
    }

    fn path(&self, path: &str) -> PathBuf {
        // Temporary directories are links on some systems; what is found has them resolved.
        self.root.path().canonicalize().unwrap().join(path)
    }

    fn script(&self, path: &str, body: &str) {
        let path = self.path(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, format!("#!/bin/sh\n{body}\n")).unwrap();
        fs::set_permissions(&path, Permissions::from_mode(0o755)).unwrap();
    }

    fn install(&self, dir: &str, version: &str) {
        for program in NEEDED {
            self.script(&format!("{dir}/{program}"), &format!("echo '{program} (PostgreSQL) {version}'"));
        }
    }

    async fn find(&self, path: &[&str]) -> Result<PathBuf, LocalError> {
        let path = env::join_paths(path.iter().map(|dir| self.path(dir))).unwrap();
        let places = Places { path, root: self.path("") };
        let (place, _) = Place::choose(&self.path("data"), &self.run_as).unwrap();
        Ok(find(&places, &self.run_as, &place).await?.dir)
    }
}

#[tokio::test]
async fn without_a_server_the_error_says_what_to_install_and_the_alternative() {
    let said = Machine::new().find(&["usr/bin"]).await.unwrap_err().to_string();
    for word in ["postgresql-server", "brew install postgresql@17", "apt install postgresql", "DATABASE_URL"]
    {
        assert!(said.contains(word), "{said}");
    }
}

#[tokio::test]
async fn the_newest_supported_server_wins_wherever_it_is() {
    let machine = Machine::new();
    machine.install("usr/lib/postgresql/15/bin", "15.18 (Debian 15.18-0+deb12u1)");
    machine.install("usr/lib/postgresql/9.6/bin", "9.6.24");
    machine.install("usr/pgsql-17/bin", "17.2");
    machine.install("opt/homebrew/opt/postgresql@19/bin", "19beta1 (Homebrew)");
    assert_eq!(machine.find(&[]).await.unwrap(), machine.path("usr/pgsql-17/bin"));
}

#[tokio::test]
async fn a_link_on_the_path_leads_to_the_set_and_comes_first_among_equals() {
    let machine = Machine::new();
    machine.install("usr/lib/postgresql/16/bin", "16.4");
    machine.install("opt/sixteen", "16.1");
    fs::create_dir_all(machine.path("bin")).unwrap();
    symlink(machine.path("opt/sixteen/postgres"), machine.path("bin/postgres")).unwrap();
    assert_eq!(machine.find(&["bin"]).await.unwrap(), machine.path("opt/sixteen"));
}

#[tokio::test]
async fn a_lone_wrapper_on_the_path_is_passed_over() {
    let machine = Machine::new();
    machine.script("usr/local/bin/postgres", "echo 'postgres (PostgreSQL) 18.0'");
    machine.install("usr/lib/postgresql/15/bin", "15.1");
    assert_eq!(machine.find(&["usr/local/bin"]).await.unwrap(), machine.path("usr/lib/postgresql/15/bin"));
}

#[tokio::test]
async fn pg_config_is_asked() {
    let machine = Machine::new();
    machine.install("srv/pg/bin", "17.0");
    machine.script("usr/bin/pg_config", &format!("echo {}", machine.path("srv/pg/bin").display()));
    assert_eq!(machine.find(&["usr/bin"]).await.unwrap(), machine.path("srv/pg/bin"));
}

#[tokio::test]
async fn a_cluster_is_run_by_the_version_that_made_it_or_not_at_all() {
    let machine = Machine::new();
    machine.install("usr/lib/postgresql/16/bin", "16.4");
    machine.install("usr/lib/postgresql/17/bin", "17.0");
    fs::create_dir_all(machine.path("data/server/data")).unwrap();
    fs::write(machine.path("data/users"), "").unwrap();
    fs::write(machine.path("data/server/data/PG_VERSION"), "16\n").unwrap();
    assert_eq!(machine.find(&[]).await.unwrap(), machine.path("usr/lib/postgresql/16/bin"));

    fs::write(machine.path("data/server/data/PG_VERSION"), "15\n").unwrap();
    let said = machine.find(&[]).await.unwrap_err().to_string();
    assert!(
        said.contains("made by PostgreSQL 15") && said.contains("16 in") && said.contains("17 in"),
        "{said}"
    );
}
