//! The user that runs the server's programs, and how they are run.

use std::io;
use std::os::unix::fs::chown;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use nix::unistd::{Uid, User};
use tokio::time::{sleep, timeout};

use super::error::LocalError;

/// The environment variables that the server's programs get. The others may hold secrets, which a server that outlives
/// rosterd would keep, and `PG…` variables are meant for other servers.
const PASSED_VARIABLES: [&str; 3] = ["PATH", "LD_LIBRARY_PATH", "TMPDIR"];

/// The user that runs the server's programs. PostgreSQL refuses to run as root.
#[derive(Clone, Debug)]
pub(super) enum RunAs {
    CurrentUser,
    /// Another user, because this process runs as root.
    Other(User),
}

impl RunAs {
    pub(super) fn choose() -> Result<Self, LocalError> {
        if !Uid::effective().is_root() {
            return Ok(Self::CurrentUser);
        }
        // If a lookup fails, the user counts as not existing.
        ["postgres", "nobody"]
            .into_iter()
            .find_map(|name| User::from_name(name).ok().flatten())
            .map(Self::Other)
            .ok_or(LocalError::NoUser)
    }

    /// A command that runs as this user, with [`PASSED_VARIABLES`] only.
    pub(super) fn command(&self, program: impl AsRef<Path>) -> Command {
        let mut command = Command::new(program.as_ref());
        command.env_clear().env("LC_ALL", "C").current_dir("/").stdin(Stdio::null());
        command.envs(PASSED_VARIABLES.into_iter().filter_map(|name| Some((name, std::env::var_os(name)?))));
        if let Self::Other(user) = self {
            // If root sets another uid, std also drops root's supplementary groups.
            command.uid(user.uid.as_raw()).gid(user.gid.as_raw());
        }
        command
    }

    /// Whether this user can enter `dir`. A child process tests it, so that ACLs and mounts count.
    pub(super) fn may_enter(&self, dir: &Path) -> bool {
        let mut test = self.command("sh");
        test.args(["-c", "test -x \"$0\""]).arg(dir).stdout(Stdio::null()).stderr(Stdio::null());
        test.status().is_ok_and(|status| status.success())
    }

    pub(super) fn set_owner(&self, path: &Path) -> io::Result<()> {
        match self {
            Self::CurrentUser => Ok(()),
            Self::Other(user) => chown(path, Some(user.uid.as_raw()), Some(user.gid.as_raw())),
        }
    }

    pub(super) fn set_group(&self, path: &Path) -> io::Result<()> {
        match self {
            Self::CurrentUser => Ok(()),
            Self::Other(user) => chown(path, None, Some(user.gid.as_raw())),
        }
    }
}

/// A program that was just written is tried again after this time.
const BUSY_PAUSE: Duration = Duration::from_millis(20);

/// Runs a program and returns its output. A program that runs longer than `limit` is killed.
pub(super) async fn run(command: Command, limit: Duration) -> Result<String, LocalError> {
    let program = command.get_program().to_string_lossy().into_owned();
    let failed = |outcome| LocalError::Program { program: program.clone(), outcome };
    let mut command = tokio::process::Command::from(command);
    command.kill_on_drop(true);
    let output = async {
        loop {
            match command.output().await {
                // Another thread that starts a process has for a moment the file that wrote this program.
                Err(error) if error.kind() == io::ErrorKind::ExecutableFileBusy => sleep(BUSY_PAUSE).await,
                ended => break ended,
            }
        }
    };
    match timeout(limit, output).await {
        Ok(Ok(output)) if output.status.success() => Ok(String::from_utf8_lossy(&output.stdout).into_owned()),
        Ok(Ok(output)) => {
            let output_tail = tail(&String::from_utf8_lossy(&output.stderr));
            Err(failed(format!("{}: {output_tail}", output.status)))
        }
        Ok(Err(error)) => Err(failed(error.to_string())),
        Err(_) => Err(failed(format!("still running after {} s", limit.as_secs()))),
    }
}

/// The last lines of a log, as one line.
pub(super) fn tail(text: &str) -> String {
    const LINES: usize = 8;
    let lines: Vec<_> = text.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
    if lines.is_empty() {
        "(no output)".to_owned()
    } else {
        lines[lines.len().saturating_sub(LINES)..].join(" | ")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn program_that_is_still_open_for_writing_runs_once_it_is_closed() {
        let dir = tempfile::tempdir().unwrap();
        let program = dir.path().join("echo");
        std::fs::copy("/bin/echo", &program).unwrap();
        let writer = std::fs::OpenOptions::new().append(true).open(&program).unwrap();
        let mut command = Command::new(&program);
        command.arg("ran");
        let close = async {
            sleep(BUSY_PAUSE * 3).await;
            drop(writer);
        };
        let (ran, ()) = tokio::join!(run(command, Duration::from_secs(5)), close);
        assert_eq!(ran.unwrap(), "ran\n");
    }

    #[tokio::test]
    async fn server_program_runs_without_root_and_its_groups() {
        let run_as = RunAs::choose().unwrap();
        let mut id = run_as.command("id");
        id.arg("-G");
        let groups = run(id, Duration::from_secs(5)).await.unwrap();
        let mut id = run_as.command("id");
        id.arg("-u");
        assert_ne!(run(id, Duration::from_secs(5)).await.unwrap().trim(), "0");
        if let RunAs::Other(user) = run_as {
            assert_eq!(groups.trim(), user.gid.to_string());
        }
    }

    #[tokio::test]
    async fn server_program_gets_only_the_passed_variables() {
        let seen = run(RunAs::choose().unwrap().command("env"), Duration::from_secs(5)).await.unwrap();
        let unexpected: Vec<_> = seen
            .lines()
            .filter_map(|line| line.split('=').next())
            .filter(|name| *name != "LC_ALL" && !PASSED_VARIABLES.contains(name))
            .collect();
        assert!(unexpected.is_empty(), "{unexpected:?}");
    }

    #[tokio::test]
    async fn program_that_exceeds_its_limit_is_killed() {
        let mut sleep = RunAs::choose().unwrap().command("sleep");
        sleep.arg("60");
        let error = run(sleep, Duration::from_millis(50)).await.unwrap_err();
        assert!(error.to_string().contains("running sleep"), "{error}");
    }

    #[test]
    fn tail_joins_the_last_lines() {
        let log: Vec<_> = (1..=20).map(|n| format!("line {n}\n")).collect();
        assert_eq!(tail(&log.join("\n")).split(" | ").next(), Some("line 13"));
        assert_eq!(tail(""), "(no output)");
    }
}
