//! Builds the Debian package and the RPM package, and installs, upgrades and removes both on copies of this machine's files.
//! Each test prints why it was skipped if the machine cannot do this, or fails if `ROSTERD_PACKAGES` says that the machine can.

use std::fs;
use std::io::Write;
use std::path::Path;
use std::sync::OnceLock;

use crate::copy::{self, run, succeeds};

const ROOT: &str = env!("CARGO_MANIFEST_DIR");

#[track_caller]
fn skip(reason: &str) {
    assert!(std::env::var_os("ROSTERD_PACKAGES").is_none(), "{reason}");
    let _ = writeln!(std::io::stderr(), "packages: SKIPPED: {reason}");
}

/// Builds the packages that this machine has tools for, once; returns their formats.
fn formats() -> &'static [&'static str] {
    static BUILT: OnceLock<Vec<&str>> = OnceLock::new();
    BUILT.get_or_init(|| {
        let tools = [("deb", "deb", "cargo-deb"), ("rpm", "generate-rpm", "cargo-generate-rpm")];
        let mut formats = Vec::new();
        for (format, command, tool) in tools {
            if succeeds("cargo", &[command, "--version"]) {
                formats.push(format);
            } else {
                skip(&format!("the {format} package needs {tool}: cargo install --locked {tool}"));
            }
        }
        if !formats.is_empty() {
            let binary = env!("CARGO_BIN_EXE_rosterd");
            let built = run(".ci/package", &[&["--binary", binary, "--fast"], formats.as_slice()].concat());
            assert!(built.status.success(), "{built:?}");
        }
        formats
    })
}

/// The only package of this format.
fn package(format: &str) -> Option<String> {
    formats().contains(&format).then(|| {
        let entries = fs::read_dir(Path::new(ROOT).join("target/package")).unwrap();
        let mut names = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap());
        names.find(|name| name.ends_with(&format!(".{format}"))).unwrap()
    })
}

/// Runs a script as root on a copy of this machine's files, with the packages in `/given`. `None` if that is not possible.
fn in_a_copy(probe: &str, script: &str) -> Option<String> {
    if copy::is_possible(probe) {
        return Some(copy::script(concat!(env!("CARGO_MANIFEST_DIR"), "/target/package"), script));
    }
    skip(&format!("the installation needs root, the rights to mount (unshare --mount), and {probe}"));
    None
}

fn in_a_debian(script: &str) -> Option<String> {
    in_a_copy("dpkg --version", &format!("export DEBIAN_FRONTEND=noninteractive\n{script}"))
}

/// Debian's rpm installs packages only with `--force-debian`, and its database does not have the programs of this machine.
fn in_a_machine_with_rpm(script: &str) -> Option<String> {
    let rpm = "rpm() { command rpm --force-debian --nodeps \"$@\"; }";
    in_a_copy("rpm --version", &format!("{rpm}\n{script}"))
}

/// `--force-depends`: the machine of the test may have another glibc.
fn install_deb(deb: &str) -> String {
    format!("dpkg --force-depends --install /given/{deb} >/dev/null\n")
}

fn install_rpm(rpm: &str) -> String {
    format!("rpm --install /given/{rpm}\n")
}

/// What an administrator writes, and what the service does.
const CONFIGURE: &str = "
     echo 'HARVEST_ACCOUNT_ID=123456' >> /etc/rosterd/rosterd.env
     echo 'log.level = \"debug\"' > /etc/rosterd/rosterd.toml\n";
const SECRET_AND_DATA: &str = "
     install -m 600 /dev/null /etc/rosterd/harvest-access-token
     install -o rosterd -g rosterd -m 600 /dev/null /var/lib/rosterd/data\n";

/// The same package with a higher version and another file of settings, as `/tmp/newer.deb`.
const NEWER_DEB: &str = "
     dpkg-deb --raw-extract /given/*.deb /tmp/newer
     sed -i 's/^Version: .*/Version: 99.0.0/' /tmp/newer/DEBIAN/control
     echo '# a new default' >> /tmp/newer/etc/rosterd/rosterd.toml
     dpkg-deb -Znone --build /tmp/newer /tmp/newer.deb >/dev/null\n";

/// The same as `target/package/newer/*.rpm`.
fn build_newer_rpm() {
    static BUILT: OnceLock<()> = OnceLock::new();
    BUILT.get_or_init(|| {
        let dir = format!("{ROOT}/target/package/newer");
        fs::create_dir_all(&dir).unwrap();
        let settings = fs::read_to_string(format!("{ROOT}/deploy/packages/rosterd.toml")).unwrap();
        fs::write(format!("{dir}/rosterd.toml"), settings + "# a new default\n").unwrap();
        let metadata =
            include_str!("../../Cargo.toml").split("[package.metadata.generate-rpm]\n").nth(1).unwrap();
        let metadata = metadata.split("\n[").next().unwrap();
        let changed = metadata.replace("deploy/packages/rosterd.toml", "target/package/newer/rosterd.toml");
        assert_ne!(changed, metadata);
        fs::write(format!("{dir}/metadata.toml"), format!("version = \"99.0.0\"\n{changed}")).unwrap();
        let metadata = format!("{dir}/metadata.toml");
        let options = ["--output", &dir, "--payload-compress", "none", "--metadata-overwrite", &metadata];
        let built = run("cargo", &[&["generate-rpm"], options.as_slice()].concat());
        assert!(built.status.success(), "{built:?}");
    });
}

const LOOK: &str = "
     rosterd --version
     getent passwd rosterd
     stat --format '%n %U:%G %a' /etc/rosterd /etc/rosterd/* /var/lib/rosterd /usr/bin/rosterd
     ls /usr/lib/systemd/system/rosterd.service /usr/lib/systemd/system/rosterd.service.d /usr/share/man/man1 /usr/share/doc/rosterd
     ls /usr/share/bash-completion/completions/rosterd /usr/share/fish/vendor_completions.d/rosterd.fish
     runuser -u rosterd -- rosterd check --config /etc/rosterd/rosterd.toml || true\n";

#[track_caller]
fn expect_installed(output: &str) {
    for line in [
        concat!("rosterd ", env!("CARGO_PKG_VERSION")),
        "/etc/rosterd root:rosterd 750\n",
        "/etc/rosterd/rosterd.env root:root 600\n",
        "/etc/rosterd/rosterd.toml root:rosterd 640\n",
        "/etc/rosterd/harvest-access-token root:root 600\n",
        "/var/lib/rosterd rosterd:rosterd 750\n",
        "/usr/bin/rosterd root:root 755\n",
        "rosterd.1.gz\n",
        "rosterd-psql.1.gz\n",
        "package.conf\n",
        "default.toml\n",
        "roles.sql\n",
        // The user of the service can read the settings; they have no account.
        "✗ settings: ",
    ] {
        assert!(output.contains(line), "{line:?} is not in {output}");
    }
}

#[test]
fn deb_installs_program_unit_settings_user_manual_and_completions() {
    let Some(deb) = package("deb") else { return };
    let script = install_deb(&deb)
        + CONFIGURE
        + SECRET_AND_DATA
        + LOOK
        + "ls /usr/share/zsh/vendor-completions/_rosterd
           dpkg-query --show --showformat '${Conffiles}' rosterd";
    let Some(output) = in_a_debian(&script) else { return };
    expect_installed(&output);
    for line in
        [":/var/lib/rosterd:/usr/sbin/nologin\n", " /etc/rosterd/rosterd.env ", " /etc/rosterd/rosterd.toml "]
    {
        assert!(output.contains(line), "{line:?} is not in {output}");
    }
}

#[test]
fn rpm_installs_program_unit_settings_user_manual_and_completions() {
    let Some(rpm) = package("rpm") else { return };
    let script = install_rpm(&rpm)
        + CONFIGURE
        + SECRET_AND_DATA
        + LOOK
        + "ls /usr/share/zsh/site-functions/_rosterd
           command rpm --query rosterd";
    let Some(output) = in_a_machine_with_rpm(&script) else { return };
    expect_installed(&output);
    for line in [":/var/lib/rosterd:/sbin/nologin\n", concat!("\nrosterd-", env!("CARGO_PKG_VERSION"), "-1.")]
    {
        assert!(output.contains(line), "{line:?} is not in {output}");
    }
}

/// Records what the scripts of the packages ask of systemd, which does not run in the copy.
const SYSTEMCTL: &str = "
     mkdir -p /run/systemd/system
     printf '#!/bin/sh\\necho \"systemctl $*\" >> /tmp/systemctl\\n' > /usr/bin/systemctl
     chmod 755 /usr/bin/systemctl\n";
const ASKED: &str = "grep -v daemon-reload /tmp/systemctl\n";

/// What upgrade and removal must keep.
const STATE: &str = "
     cat /etc/rosterd/rosterd.toml*
     tail -n 1 /etc/rosterd/rosterd.env*
     stat --format '%n %U:%G %a' /etc/rosterd /etc/rosterd/harvest-access-token /var/lib/rosterd/data
     getent passwd rosterd >/dev/null && echo 'the user exists'\n";

#[track_caller]
fn expect_kept_twice(output: &str) {
    for kept in [
        "log.level = \"debug\"\n",
        "HARVEST_ACCOUNT_ID=123456\n",
        "/etc/rosterd root:rosterd 750\n",
        "/etc/rosterd/harvest-access-token root:root 600\n",
        "/var/lib/rosterd/data rosterd:rosterd 600\n",
        "the user exists\n",
    ] {
        assert_eq!(output.matches(kept).count(), 2, "{kept:?} in {output}");
    }
    assert!(output.contains("the program is removed"), "{output}");
    let asked: Vec<_> = output.lines().filter(|line| line.starts_with("systemctl ")).collect();
    assert_eq!(asked, ["systemctl try-restart rosterd.service", "systemctl disable --now rosterd.service"]);
}

#[test]
fn deb_upgrade_and_removal_keep_data_secrets_and_edited_settings() {
    let Some(deb) = package("deb") else { return };
    let script = SYSTEMCTL.to_owned()
        + &install_deb(&deb)
        + CONFIGURE
        + SECRET_AND_DATA
        + NEWER_DEB
        + "dpkg --force-depends --force-confdef --force-confold --install /tmp/newer.deb >/dev/null 2>&1
           dpkg-query --show rosterd
           tail -n 1 /etc/rosterd/rosterd.toml.dpkg-dist\n"
        + STATE
        + "dpkg --remove rosterd >/dev/null
           ls /usr/bin/rosterd 2>/dev/null || echo 'the program is removed'\n"
        + STATE
        + ASKED;
    let Some(output) = in_a_debian(&script) else { return };
    assert!(output.contains("rosterd\t99.0.0\n# a new default\n"), "{output}");
    expect_kept_twice(&output);
}

#[test]
fn rpm_upgrade_and_removal_keep_data_secrets_and_edited_settings() {
    let Some(rpm) = package("rpm") else { return };
    build_newer_rpm();
    let script = SYSTEMCTL.to_owned()
        + &install_rpm(&rpm)
        + CONFIGURE
        + SECRET_AND_DATA
        + "rpm --upgrade /given/newer/*.rpm 2>/dev/null
           command rpm --query rosterd
           tail -n 1 /etc/rosterd/rosterd.toml.rpmnew\n"
        + STATE
        + "rpm --erase rosterd 2>/dev/null
           ls /usr/bin/rosterd 2>/dev/null || echo 'the program is removed'\n"
        + STATE
        + ASKED
        + "ls /etc/rosterd";
    let Some(output) = in_a_machine_with_rpm(&script) else { return };
    assert!(output.contains("rosterd-99.0.0-1.") && output.contains("\n# a new default\n"), "{output}");
    expect_kept_twice(&output);
    for settings in ["\nrosterd.env.rpmsave\n", "\nrosterd.toml.rpmsave\n"] {
        assert!(output.contains(settings), "{settings:?} is not in {output}");
    }
}

/// An upgrade may replace settings that the administrator did not edit. The service must be able to read them.
const REPLACED: &str = "tail -n 1 /etc/rosterd/rosterd.toml
     stat --format '%U:%G %a' /etc/rosterd/rosterd.toml
     runuser -u rosterd -- head -c 1 /etc/rosterd/rosterd.toml";

#[test]
fn deb_upgrade_replaces_unedited_settings_that_the_service_can_read() {
    let Some(deb) = package("deb") else { return };
    let upgrade = "dpkg --force-depends --install /tmp/newer.deb >/dev/null\n";
    let script = install_deb(&deb) + NEWER_DEB + upgrade + REPLACED;
    let Some(output) = in_a_debian(&script) else { return };
    assert_eq!(output, "# a new default\nroot:rosterd 640\n#");
}

#[test]
fn rpm_upgrade_replaces_unedited_settings_that_the_service_can_read() {
    let Some(rpm) = package("rpm") else { return };
    build_newer_rpm();
    let script = install_rpm(&rpm) + "rpm --upgrade /given/newer/*.rpm\n" + REPLACED;
    let Some(output) = in_a_machine_with_rpm(&script) else { return };
    assert_eq!(output, "# a new default\nroot:rosterd 640\n#");
}

#[test]
fn deb_purge_removes_settings_secrets_data_and_the_user() {
    let Some(deb) = package("deb") else { return };
    let script = install_deb(&deb)
        + CONFIGURE
        + SECRET_AND_DATA
        + "dpkg --purge rosterd >/dev/null
           ls -d /etc/rosterd /var/lib/rosterd 2>/dev/null || echo 'both directories are removed'
           getent passwd rosterd || echo 'the user is removed'
           find /usr/lib/systemd /usr/share -name '*rosterd*' | grep . || echo 'no file is left'";
    let Some(output) = in_a_debian(&script) else { return };
    assert_eq!(output, "both directories are removed\nthe user is removed\nno file is left\n");
}
