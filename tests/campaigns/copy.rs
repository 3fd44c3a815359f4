//! Runs scripts as root on a throw-away copy of this machine's files.

use std::process::{Command, Output};

/// Mounts the copy, whose changes stay in memory and whose `/tmp` is empty, and runs the script of the second argument in it. The first argument is a
/// directory of the repository that appears as `/given`.
const MOUNT: &str = r#"
set -e
mount -t tmpfs none /mnt
mkdir /mnt/upper /mnt/work /mnt/root
mount -t overlay -o lowerdir=/,upperdir=/mnt/upper,workdir=/mnt/work none /mnt/root
mount --bind /dev /mnt/root/dev
mount -t proc none /mnt/root/proc
mount -t tmpfs none /mnt/root/tmp
mkdir -p /mnt/root/given
mount --bind "$1" /mnt/root/given
exec chroot /mnt/root sh -e -c "$2"
"#;

/// Whether a program succeeds.
pub fn succeeds(program: &str, arguments: &[&str]) -> bool {
    Command::new(program).args(arguments).output().is_ok_and(|output| output.status.success())
}

/// Runs a program in the root of the repository.
pub fn run(program: &str, arguments: &[&str]) -> Output {
    let called = Command::new(program).args(arguments).current_dir(env!("CARGO_MANIFEST_DIR")).output();
    called.unwrap_or_else(|error| panic!("{program}: {error}"))
}

/// A script on a copy, as root: with `sudo`, if the tests do not run as root and it needs no password.
fn in_a_copy(given: &str, script: &str) -> Output {
    let sudo: &[&str] = if nix::unistd::geteuid().is_root() { &[] } else { &["sudo", "-n"] };
    let words = [sudo, &["unshare", "--mount", "sh", "-c", MOUNT, "sh", given, script]].concat();
    run(words[0], &words[1..])
}

/// Whether this machine can make a copy in which `probe` succeeds: it takes root and the rights to mount.
pub fn is_possible(probe: &str) -> bool {
    succeeds("unshare", &["--version"]) && in_a_copy("/tmp", probe).status.success()
}

/// What a script printed, which must succeed.
#[track_caller]
pub fn script(given: &str, script: &str) -> String {
    let output = in_a_copy(given, script);
    let (stdout, stderr) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{stdout}\n{stderr}");
    stdout.into_owned()
}
