//! Calls the program on a pseudo-terminal.

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::OwnedFd;
use std::process::Stdio;

use crate::program::{Program, STUCK};

/// The result of a call on a terminal.
pub struct Shown {
    pub code: Option<i32>,
    /// The terminal's whole output, which includes the echoed answer.
    pub text: String,
}

impl Shown {
    #[track_caller]
    pub fn expect(&self, code: i32) -> &Self {
        assert_eq!(self.code, Some(code), "{}", self.text);
        self
    }
}

/// Calls the program on a terminal that already has `answer` as input.
pub async fn call(program: &Program, arguments: &[&str], answer: &str) -> Shown {
    let nix::pty::OpenptyResult { master, slave } = nix::pty::openpty(None, None).unwrap();
    let stdio = |slave: &OwnedFd| Stdio::from(slave.try_clone().unwrap());
    let mut command = program.command(arguments);
    command.stdin(stdio(&slave)).stdout(stdio(&slave)).stderr(stdio(&slave));
    let mut child = command.spawn().unwrap();
    // As long as this process has copies of the slave side, the terminal stays open.
    drop((command, slave));
    let mut master = File::from(master);
    master.write_all(answer.as_bytes()).unwrap();
    let shown = tokio::task::spawn_blocking(move || {
        let mut text = Vec::new();
        // On Linux the read fails once no process has the slave side open.
        let _ = master.read_to_end(&mut text);
        Shown { code: child.wait().unwrap().code(), text: String::from_utf8_lossy(&text).into_owned() }
    });
    tokio::time::timeout(STUCK, shown).await.expect("stuck").unwrap()
}
