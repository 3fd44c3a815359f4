//! Who runs the server's programs, and how they are run.

use std::io;
use std::os::unix::fs::chown;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use nix::unistd::{Uid, User};

use super::LocalError;

/// What the server's programs get of our environment. The rest holds our secrets, and a server outlives us
/// where we are killed; `PG…` variables are meant for somebody else's server.
const PASSED_ON: [&str; 3] = ["PATH", "LD_LIBRARY_PATH", "TMPDIR"];

/// Who the server's programs run as: we ourselves, except for root, whom PostgreSQL refuses.
#[derive(Clone, Debug)]
pub(super) enum RunAs {
    Ourselves,
    Ordinary(User),
}

impl RunAs {
    pub(super) fn choose() -> Result<Self, LocalError> {
        if !Uid::effective().is_root() {
            return Ok(Self::Ourselves);
        }
        // A look-up that fails is a user that is not there.
        ["postgres", "nobody"]
            .into_iter()
            .find_map(|name| User::from_name(name).ok().flatten())
            .map(Self::Ordinary)
            .ok_or(LocalError::NoUser)
    }

    /// A command to be run by that user, told nothing that it need not know.
    pub(super) fn command(&self, program: impl AsRef<Path>) -> Command {
        let mut command = Command::new(program.as_ref());
        command.env_clear().env("LC_ALL", "C").current_dir("/").stdin(Stdio::null());
        command.envs(PASSED_ON.into_iter().filter_map(|name| Some((name, std::env::var_os(name)?))));
        if let Self::Ordinary(user) = self {
            // Where root asks for another uid, std drops root's supplementary groups as well.
            command.uid(user.uid.as_raw()).gid(user.gid.as_raw());
        }
        command
    }

    /// Whether that user can reach what is in `dir`. The kernel is asked, which knows of ACLs and mounts.
    pub(super) fn may_enter(&self, dir: &Path) -> bool {
        let mut test = self.command("sh");
        test.args(["-c", "test -x \"$0\""]).arg(dir).stdout(Stdio::null()).stderr(Stdio::null());
        test.status().is_ok_and(|status| status.success())
    }

    /// Makes that user the owner of `path`.
    pub(super) fn give(&self, path: &Path) -> io::Result<()> {
        match self {
            Self::Ourselves => Ok(()),
            Self::Ordinary(user) => chown(path, Some(user.uid.as_raw()), Some(user.gid.as_raw())),
        }
    }

    /// Makes that user's group the group of `path`.
    pub(super) fn give_to_group(&self, path: &Path) -> io::Result<()> {
        match self {
            Self::Ourselves => Ok(()),
            Self::Ordinary(user) => chown(path, None, Some(user.gid.as_raw())),
        }
    }
}

/// Runs a program to its end and returns what it printed; a program that takes longer than `limit` is killed.
pub(super) async fn run(command: Command, limit: Duration) -> Result<String, LocalError> {
    let program = command.get_program().to_string_lossy().into_owned();
    let failed = |outcome| LocalError::Program { program: program.clone(), outcome };
    let mut command = tokio::process::Command::from(command);
    command.kill_on_drop(true);
    match tokio::time::timeout(limit, command.output()).await {
        Ok(Ok(output)) if output.status.success() => Ok(String::from_utf8_lossy(&output.stdout).into_owned()),
        Ok(Ok(output)) => {
            let said = tail(&String::from_utf8_lossy(&output.stderr));
            Err(failed(format!("{}: {said}", output.status)))
        }
        Ok(Err(error)) => Err(failed(error.to_string())),
        Err(_) => Err(failed(format!("no end after {} s", limit.as_secs()))),
    }
}

/// The last lines of a log, as one line.
pub(super) fn tail(text: &str) -> String {
    const LINES: usize = 8;
    let lines: Vec<_> = text.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
    if lines.is_empty() {
        "(nothing)".to_owned()
    } else {
        lines[lines.len().saturating_sub(LINES)..].join(" | ")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_program_of_the_server_is_never_root_and_has_no_group_of_roots() {
        let run_as = RunAs::choose().unwrap();
        let mut id = run_as.command("id");
        id.arg("-G");
        let groups = run(id, Duration::from_secs(5)).await.unwrap();
        let mut id = run_as.command("id");
        id.arg("-u");
        assert_ne!(run(id, Duration::from_secs(5)).await.unwrap().trim(), "0");
        if let RunAs::Ordinary(user) = run_as {
            assert_eq!(groups.trim(), user.gid.to_string());
        }
    }

    #[tokio::test]
    async fn a_program_of_the_server_sees_none_of_our_variables() {
        let seen = run(RunAs::choose().unwrap().command("env"), Duration::from_secs(5)).await.unwrap();
        let strangers: Vec<_> = seen
            .lines()
            .filter_map(|line| line.split('=').next())
            .filter(|name| *name != "LC_ALL" && !PASSED_ON.contains(name))
            .collect();
        assert!(strangers.is_empty(), "{strangers:?}");
    }

    #[tokio::test]
    async fn a_program_that_hangs_is_given_up() {
        let mut sleep = RunAs::choose().unwrap().command("sleep");
        sleep.arg("60");
        let error = run(sleep, Duration::from_millis(50)).await.unwrap_err();
        assert!(error.to_string().contains("running sleep"), "{error}");
    }

    #[test]
    fn a_tail_is_one_line_of_the_last_that_was_said() {
        let log: Vec<_> = (1..=20).map(|n| format!("line {n}\n")).collect();
        assert_eq!(tail(&log.join("\n")).split(" | ").next(), Some("line 13"));
        assert_eq!(tail(""), "(nothing)");
    }
}
