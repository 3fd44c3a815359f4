//! Runs scripts as root on a throw-away copy of this machine's files.

use std::process::{Command, Output};

/// Mounts the copy, whose changes stay in memory, and runs the script of the second argument in it. The first argument is a
/// directory of the repository that appears as `/given`.
const MOUNT: &str = r#"
set -e
mount -t tmpfs none /mnt
mkdir /mnt/upper /mnt/work /mnt/root
mount -t overlay -o lowerdir=/,upperdir=/mnt/upper,workdir=/mnt/work none /mnt/root
mount --bind /dev /mnt/root/dev
mount -t proc none /mnt/root/proc
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

/// Whether this machine can make a copy in which `probe` succeeds: it takes root and the rights to mount.
pub fn is_possible(probe: &str) -> bool {
    succeeds("unshare", &["--mount", "sh", "-c", MOUNT, "sh", "/tmp", probe])
}

/// What a script printed, which must succeed.
#[track_caller]
pub fn script(given: &str, script: &str) -> String {
    let output = run("unshare", &["--mount", "sh", "-c", MOUNT, "sh", given, script]);
    let (stdout, stderr) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{stdout}\n{stderr}");
    stdout.into_owned()
}
