//! The search on simulated machines whose programs are shell scripts.

use std::fs::Permissions;
use std::os::unix::fs::{PermissionsExt, symlink};

use super::*;

/// A root directory with programs that only print their version.
struct Machine {
    root: tempfile::TempDir,
    run_as: RunAs,
}

impl Machine {
    fn new() -> Self {
        // Open to all users, because root runs the programs as another user.
        let root = tempfile::Builder::new().permissions(Permissions::from_mode(0o755)).tempdir().unwrap();
        Self { root, run_as: RunAs::choose().unwrap() }
    }

    fn path(&self, path: &str) -> PathBuf {
        // Temporary directories are links on some systems, and the search resolves links.
        self.root.path().canonicalize().unwrap().join(path)
    }

    fn script(&self, path: &str, body: &str) {
        let path = self.path(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, format!("#!/bin/sh\n{body}\n")).unwrap();
        fs::set_permissions(&path, Permissions::from_mode(0o755)).unwrap();
    }

    fn install(&self, dir: &str, version: &str) {
        for program in REQUIRED {
            self.script(&format!("{dir}/{program}"), &format!("echo '{program} (PostgreSQL) {version}'"));
        }
    }

    async fn find(&self, path: &[&str]) -> Result<PathBuf, LocalError> {
        let path = env::join_paths(path.iter().map(|dir| self.path(dir))).unwrap();
        let paths = SearchPaths { path, root: Some(self.path("")), downloads: self.path("downloads") };
        let (data_dir, _) = DataDir::choose(&self.path("data"), &self.run_as).unwrap();
        Ok(find(&paths, &self.run_as, &data_dir).await?.dir)
    }
}

#[tokio::test]
async fn error_without_a_server_names_packages_and_the_alternative() {
    let text = Machine::new().find(&["usr/bin"]).await.unwrap_err().to_string();
    for word in ["postgresql-server", "brew install postgresql@17", "apt install postgresql", "DATABASE_URL"]
    {
        assert!(text.contains(word), "{text}");
    }
}

#[tokio::test]
async fn newest_supported_server_is_found_in_any_directory() {
    let machine = Machine::new();
    machine.install("usr/lib/postgresql/15/bin", "15.18 (Debian 15.18-0+deb12u1)");
    machine.install("usr/lib/postgresql/9.6/bin", "9.6.24");
    machine.install("usr/pgsql-17/bin", "17.2");
    machine.install("opt/homebrew/opt/postgresql@19/bin", "19beta1 (Homebrew)");
    assert_eq!(machine.find(&[]).await.unwrap(), machine.path("usr/pgsql-17/bin"));
}

#[tokio::test]
async fn link_on_the_path_precedes_a_package_of_the_same_version() {
    let machine = Machine::new();
    machine.install("usr/lib/postgresql/16/bin", "16.4");
    machine.install("opt/sixteen", "16.1");
    fs::create_dir_all(machine.path("bin")).unwrap();
    symlink(machine.path("opt/sixteen/postgres"), machine.path("bin/postgres")).unwrap();
    assert_eq!(machine.find(&["bin"]).await.unwrap(), machine.path("opt/sixteen"));
}

#[tokio::test]
async fn wrapper_without_the_other_programs_is_skipped() {
    let machine = Machine::new();
    machine.script("usr/local/bin/postgres", "echo 'postgres (PostgreSQL) 18.0'");
    machine.install("usr/lib/postgresql/15/bin", "15.1");
    assert_eq!(machine.find(&["usr/local/bin"]).await.unwrap(), machine.path("usr/lib/postgresql/15/bin"));
}

#[tokio::test]
async fn directory_from_pg_config_is_searched() {
    let machine = Machine::new();
    machine.install("srv/pg/bin", "17.0");
    machine.script("usr/bin/pg_config", &format!("echo {}", machine.path("srv/pg/bin").display()));
    assert_eq!(machine.find(&["usr/bin"]).await.unwrap(), machine.path("srv/pg/bin"));
}

#[tokio::test]
async fn cluster_needs_a_server_of_the_version_that_created_it() {
    let machine = Machine::new();
    machine.install("usr/lib/postgresql/16/bin", "16.4");
    machine.install("usr/lib/postgresql/17/bin", "17.0");
    fs::create_dir_all(machine.path("data/server/data")).unwrap();
    fs::write(machine.path("data/users"), "").unwrap();
    fs::write(machine.path("data/server/data/PG_VERSION"), "16\n").unwrap();
    assert_eq!(machine.find(&[]).await.unwrap(), machine.path("usr/lib/postgresql/16/bin"));

    fs::write(machine.path("data/server/data/PG_VERSION"), "15\n").unwrap();
    let text = machine.find(&[]).await.unwrap_err().to_string();
    assert!(
        text.contains("made by PostgreSQL 15") && text.contains("16 in") && text.contains("17 in"),
        "{text}"
    );
}

#[tokio::test]
async fn downloaded_server_is_used_only_if_the_machine_has_none_for_the_cluster() {
    let machine = Machine::new();
    machine.install("downloads/17.1-abc/bin", "17.1");
    machine.install("downloads/16.1-abc/bin", "16.1");
    assert_eq!(machine.find(&[]).await.unwrap(), machine.path("downloads/17.1-abc/bin"));
    machine.install("usr/lib/postgresql/15/bin", "15.1");
    assert_eq!(machine.find(&[]).await.unwrap(), machine.path("usr/lib/postgresql/15/bin"));

    fs::create_dir_all(machine.path("data/server/data")).unwrap();
    fs::write(machine.path("data/users"), "").unwrap();
    fs::write(machine.path("data/server/data/PG_VERSION"), "16\n").unwrap();
    assert_eq!(machine.find(&[]).await.unwrap(), machine.path("downloads/16.1-abc/bin"));
}

#[tokio::test]
async fn downloaded_server_that_does_not_run_is_reported_with_its_output() {
    let machine = Machine::new();
    machine.install("downloads/17.1-abc/bin", "17.1");
    assert!(failure(&machine.path("downloads"), &machine.run_as).await.is_none());
    machine.script("downloads/17.1-abc/bin/postgres", "echo 'libxml2.so.2: cannot open' >&2; exit 127");
    let text = failure(&machine.path("downloads"), &machine.run_as).await.unwrap().to_string();
    assert!(text.contains("libxml2.so.2: cannot open") && text.contains("apt install postgresql"), "{text}");
}
