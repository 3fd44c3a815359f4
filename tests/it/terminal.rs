//! The program on a terminal: a real one, of which the test is the other side.

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::OwnedFd;
use std::process::Stdio;

use crate::program::{Program, STUCK};

/// How a call on a terminal ended.
pub struct Shown {
    pub code: Option<i32>,
    /// What the terminal showed, the answer included.
    pub text: String,
}

impl Shown {
    #[track_caller]
    pub fn expect(&self, code: i32) -> &Self {
        assert_eq!(self.code, Some(code), "{}", self.text);
        self
    }
}

/// Calls the program on a terminal where this answer has been typed.
pub async fn call(program: &Program, arguments: &[&str], answer: &str) -> Shown {
    let nix::pty::OpenptyResult { master, slave } = nix::pty::openpty(None, None).unwrap();
    let side = |slave: &OwnedFd| Stdio::from(slave.try_clone().unwrap());
    let mut command = program.command(arguments);
    command.stdin(side(&slave)).stdout(side(&slave)).stderr(side(&slave));
    let mut child = command.spawn().unwrap();
    // The parent's copies of that side would keep the terminal open.
    drop((command, slave));
    let mut master = File::from(master);
    master.write_all(answer.as_bytes()).unwrap();
    let shown = tokio::task::spawn_blocking(move || {
        let mut text = Vec::new();
        // Linux ends the reading with an error once nobody has the other side any more.
        let _ = master.read_to_end(&mut text);
        Shown { code: child.wait().unwrap().code(), text: String::from_utf8_lossy(&text).into_owned() }
    });
    tokio::time::timeout(STUCK, shown).await.expect("stuck").unwrap()
}
