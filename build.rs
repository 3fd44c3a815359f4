//! Passes the git revision to the binary, for `rosterd --version`.

use std::path::Path;
use std::process::Command;

fn main() {
    println!("cargo:rerun-if-env-changed=ROSTERD_REVISION");
    println!("cargo:rerun-if-changed=migrations");
    // If a named file does not exist, cargo builds again each time.
    for path in [".git/HEAD", ".git/refs/heads"] {
        if Path::new(path).exists() {
            println!("cargo:rerun-if-changed={path}");
        }
    }
    // A container image is built without .git and gets the revision from the environment.
    let revision =
        std::env::var("ROSTERD_REVISION").ok().filter(|revision| !revision.is_empty()).or_else(|| {
            let git = Command::new("git").args(["rev-parse", "--short=12", "HEAD"]).output().ok()?;
            git.status.success().then(|| String::from_utf8_lossy(&git.stdout).trim().to_owned())
        });
    println!("cargo:rustc-env=ROSTERD_REVISION={}", revision.as_deref().unwrap_or("unknown"));
}
