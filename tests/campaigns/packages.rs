//! Builds the Debian package and the RPM package, and installs, upgrades, removes and purges the first one on a copy of this
//! machine's files. Each test prints why it was skipped if the machine cannot do this.

use std::fs;
use std::io::Write;
use std::path::Path;
use std::sync::OnceLock;

use crate::copy::{self, run, succeeds};

fn say(text: &str) {
    let _ = writeln!(std::io::stderr(), "packages: {text}");
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
                say(&format!("SKIPPED: the {format} package needs {tool}: cargo install --locked {tool}"));
            }
        }
        if !formats.is_empty() {
            let binary = env!("CARGO_BIN_EXE_rosterd");
            let built = run(".ci/package", &[&["--binary", binary], formats.as_slice()].concat());
            assert!(built.status.success(), "{built:?}");
        }
        formats
    })
}

/// The only package of this format.
fn package(format: &str) -> Option<String> {
    formats().contains(&format).then(|| {
        let entries = fs::read_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join("target/package")).unwrap();
        let mut names = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap());
        names.find(|name| name.ends_with(&format!(".{format}"))).unwrap()
    })
}

/// Runs a script as root on a copy of this machine's files, with the packages in `/given`. `None` if that is not possible.
fn in_a_copy(script: &str) -> Option<String> {
    if copy::is_possible("dpkg --version") {
        return Some(copy::script(concat!(env!("CARGO_MANIFEST_DIR"), "/target/package"), script));
    }
    say("SKIPPED: the installation needs root, Debian's dpkg, and the rights to mount (unshare --mount)");
    None
}

/// As an administrator installs and configures it. `--force-depends`: the machine of the test may have another glibc.
fn installed(deb: &str) -> String {
    format!(
        "export DEBIAN_FRONTEND=noninteractive
         dpkg --force-depends --install /given/{deb} >/dev/null
         echo 'HARVEST_ACCOUNT_ID=123456' >> /etc/rosterd/rosterd.env
         echo 'log.level = \"debug\"' > /etc/rosterd/rosterd.toml
         install -m 600 /dev/null /etc/rosterd/harvest-access-token
         install -o rosterd -g rosterd -m 600 /dev/null /var/lib/rosterd/data\n"
    )
}

/// The same package with a higher version, as `/tmp/newer.deb`.
const NEWER: &str = "
     dpkg-deb --raw-extract /given/*.deb /tmp/newer
     sed -i 's/^Version: .*/Version: 99.0.0/' /tmp/newer/DEBIAN/control
     echo '# a new default' >> /tmp/newer/etc/rosterd/rosterd.toml
     dpkg-deb --build /tmp/newer /tmp/newer.deb >/dev/null\n";

#[test]
fn deb_installs_program_unit_settings_user_manual_and_completions() {
    let Some(deb) = package("deb") else { return };
    let script = installed(&deb)
        + "rosterd --version
           getent passwd rosterd
           stat --format '%n %U:%G %a' /etc/rosterd /etc/rosterd/* /var/lib/rosterd /usr/bin/rosterd
           ls /usr/lib/systemd/system/rosterd.service.d /usr/share/man/man1 /usr/share/doc/rosterd
           ls /usr/share/bash-completion/completions/rosterd /usr/share/zsh/vendor-completions/_rosterd
           ls /usr/share/fish/vendor_completions.d/rosterd.fish
           dpkg-query --show --showformat '${Conffiles}' rosterd
           runuser -u rosterd -- rosterd check --config /etc/rosterd/rosterd.toml || true";
    let Some(output) = in_a_copy(&script) else { return };
    for line in [
        concat!("rosterd ", env!("CARGO_PKG_VERSION")),
        ":/var/lib/rosterd:/usr/sbin/nologin",
        "/etc/rosterd root:rosterd 750",
        "/etc/rosterd/rosterd.env root:root 600",
        "/etc/rosterd/rosterd.toml root:rosterd 640",
        "/etc/rosterd/harvest-access-token root:root 600",
        "/var/lib/rosterd rosterd:rosterd 750",
        "/usr/bin/rosterd root:root 755",
        "rosterd.1.gz",
        "rosterd-psql.1.gz",
        "package.conf",
        "default.toml",
        "roles.sql",
        " /etc/rosterd/rosterd.env ",
        " /etc/rosterd/rosterd.toml ",
        // The user of the service can read the settings; they have no account.
        "✗ settings: ",
    ] {
        assert!(output.contains(line), "{line:?} is not in {output}");
    }
}

#[test]
fn deb_upgrade_and_removal_keep_data_secrets_and_edited_settings() {
    let Some(deb) = package("deb") else { return };
    let state = "cat /etc/rosterd/rosterd.toml
                 tail -n 1 /etc/rosterd/rosterd.env
                 stat --format '%n %U:%G %a' /etc/rosterd /etc/rosterd/harvest-access-token /var/lib/rosterd/data
                 getent passwd rosterd >/dev/null && echo 'the user exists'\n";
    let script = installed(&deb)
        + NEWER
        + "dpkg --force-depends --force-confdef --force-confold --install /tmp/newer.deb >/dev/null 2>&1
           dpkg-query --show rosterd
           cp /etc/rosterd/rosterd.toml.dpkg-dist /tmp/offered && tail -n 1 /tmp/offered\n"
        + state
        + "dpkg --remove rosterd >/dev/null
           ls /usr/bin/rosterd 2>/dev/null || echo 'the program is removed'\n"
        + state;
    let Some(output) = in_a_copy(&script) else { return };
    assert!(output.contains("rosterd\t99.0.0\n# a new default\n"), "{output}");
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
}

#[test]
fn deb_purge_removes_settings_secrets_data_and_the_user() {
    let Some(deb) = package("deb") else { return };
    let script = installed(&deb)
        + "dpkg --purge rosterd >/dev/null
           ls -d /etc/rosterd /var/lib/rosterd 2>/dev/null || echo 'both directories are removed'
           getent passwd rosterd || echo 'the user is removed'
           find /usr/lib/systemd /usr/share -name '*rosterd*' | grep . || echo 'no file is left'";
    let Some(output) = in_a_copy(&script) else { return };
    assert_eq!(output, "both directories are removed\nthe user is removed\nno file is left\n");
}

#[test]
fn rpm_has_the_files_of_the_deb_and_its_settings_are_not_replaced() {
    let Some(rpm) = package("rpm") else { return };
    if !succeeds("rpm", &["--version"]) {
        say("SKIPPED: the content of the RPM package needs rpm");
        return;
    }
    let file = format!("target/package/{rpm}");
    let query = |arguments: &[&str]| {
        let output = run("rpm", &[&["--query", "--package", &file], arguments].concat());
        assert!(output.status.success(), "{output:?}");
        String::from_utf8(output.stdout).unwrap()
    };
    let files = query(&["--list"]);
    for path in [
        "/usr/bin/rosterd\n",
        "/usr/lib/systemd/system/rosterd.service\n",
        "/usr/lib/systemd/system/rosterd.service.d/package.conf\n",
        "/usr/share/man/man1/rosterd.1.gz\n",
        "/usr/share/bash-completion/completions/rosterd\n",
        "/usr/share/zsh/site-functions/_rosterd\n",
        "/usr/share/doc/rosterd/default.toml\n",
    ] {
        assert!(files.contains(path), "{path:?} is not in {files}");
    }
    assert_eq!(query(&["--configfiles"]), "/etc/rosterd/rosterd.env\n/etc/rosterd/rosterd.toml\n");
    let flags = query(&["--queryformat", "[%{FILENAMES} %{FILEFLAGS:fflags}\n]"]);
    for settings in ["rosterd.env", "rosterd.toml"] {
        assert!(flags.contains(&format!("/etc/rosterd/{settings} cn\n")), "{flags}");
    }
    let scripts = query(&["--scripts"]);
    assert!(scripts.contains("useradd") && scripts.contains("systemctl disable --now"), "{scripts}");
}
