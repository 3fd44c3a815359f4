//! Secrets in files and in quotes, and paths that begin with `~`.

use std::{
    collections::BTreeMap,
    fs,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
};

use secrecy::SecretString;

use super::findings::Findings;

/// The secret in the file `path`. `key` names the file in sentences.
pub(super) fn from_file(
    key: &str,
    path: &str,
    home: Option<&str>,
    findings: &mut Findings,
) -> Result<SecretString, String> {
    let shown = shown(path);
    let file = expanded(path, home).unwrap_or_else(|| PathBuf::from(path));
    let text = fs::read_to_string(&file).map_err(|error| {
        format!(
            "{key} names {shown}, which cannot be read: {error}; name a text file that this user may read"
        )
    })?;
    // Editors and `echo` end a file with a newline that is not part of the secret.
    let text = text.trim_end_matches(['\r', '\n']);
    let secret = bare(text);
    if secret.len() < text.len() {
        findings.warn(format!("{key} names {shown}, which has {AROUND} the secret; {LEFT_OUT}"));
    }
    if secret.is_empty() {
        return Err(format!("{key} names {shown}, which is empty; write the secret into it"));
    }
    // Only a warning: a container has no other users. A pod's user reads a mounted secret through its group.
    if fs::metadata(&file).is_ok_and(|metadata| metadata.permissions().mode() & 0o004 != 0) {
        findings.warn(format!(
            "{key} names {shown}, which every user of this machine may read; run `chmod o= FILE` on it"
        ));
    }
    Ok(SecretString::from(secret))
}

const AROUND: &str = "quotes or white space around";
const LEFT_OUT: &str = "rosterd leaves them out";

/// Pairs of quotes, as shells, TOML and word processors write them.
const QUOTES: [(char, char); 4] =
    [('"', '"'), ('\'', '\''), ('\u{201c}', '\u{201d}'), ('\u{2018}', '\u{2019}')];

/// `text` without the white space and the pairs of quotes around it. `docker --env-file` keeps quotes, and files that
/// were saved on Windows have a carriage return.
fn bare(mut text: &str) -> &str {
    let is_blank = |c: char| c.is_whitespace() || c.is_control() || ['\u{feff}', '\u{200b}'].contains(&c);
    loop {
        let trimmed = text.trim_matches(is_blank);
        let unquoted =
            QUOTES.iter().find_map(|(open, close)| trimmed.strip_prefix(*open)?.strip_suffix(*close));
        match unquoted {
            Some(inner) => text = inner,
            None => return trimmed,
        }
    }
}

/// [`bare`] for the value of `name`, with a warning if it removes anything.
pub(super) fn cleaned<'t>(name: &str, text: &'t str, findings: &mut Findings) -> &'t str {
    let value = bare(text);
    if value.len() < text.len() {
        findings.warn(format!("{name} has {AROUND} its value; {LEFT_OUT}"));
    }
    value
}

/// The home directory, for [`expanded`]. `None` if it is not set or empty.
pub(super) fn home(env: &BTreeMap<String, String>) -> Option<&str> {
    env.get("HOME").filter(|home| !home.is_empty()).map(String::as_str)
}

/// `path` with `home` for a `~` at its start. `None` if it has a `~` and there is no home.
pub(super) fn expanded(path: &str, home: Option<&str>) -> Option<PathBuf> {
    match path.strip_prefix('~') {
        Some(rest) if rest.is_empty() || rest.starts_with('/') => {
            home.map(|home| Path::new(home).join(rest.trim_start_matches('/')))
        }
        _ => Some(PathBuf::from(path)),
    }
}

/// A path as a sentence may show it. A user may set the secret itself instead of its file, so text that does not look
/// like a path is not shown.
fn shown(path: &str) -> String {
    let is_path = ["/", "~/", "./", "../"].iter().any(|start| path.starts_with(start));
    if is_path && !path.contains('@') {
        format!("the file {path}")
    } else {
        "a file (not shown, because its name does not look like a path)".to_owned()
    }
}

#[cfg(test)]
mod tests {
    use secrecy::ExposeSecret;

    use super::*;

    #[test]
    fn secret_file_with_quotes_or_white_space_gives_the_bare_secret() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let path = file.path().to_str().unwrap();
        fs::set_permissions(path, fs::Permissions::from_mode(0o600)).unwrap();
        for (text, secret, warned) in [
            ("abc\n", "abc", false),
            ("abc\r\n", "abc", false),
            ("abc", "abc", false),
            (" a\nb \n", "a\nb", true),
            ("\"abc\"\n", "abc", true),
            ("'abc' \r\n", "abc", true),
            ("\u{feff}\u{201c}abc\u{201d}", "abc", true),
        ] {
            fs::write(path, text).unwrap();
            let mut findings = Findings::default();
            let read = from_file("KEY", path, None, &mut findings).unwrap();
            assert_eq!(read.expose_secret(), secret);
            let sentence = format!(
                "KEY names the file {path}, which has quotes or white space around the secret; \
                 rosterd leaves them out"
            );
            assert_eq!(findings.warnings, if warned { vec![sentence] } else { vec![] }, "{text:?}");
        }
    }

    #[test]
    fn secret_file_that_is_empty_or_absent_is_refused_with_key_and_path() {
        let file = tempfile::NamedTempFile::new().unwrap();
        fs::write(file.path(), "\"\"\n").unwrap();
        let path = file.path().to_str().unwrap();
        let empty = from_file("HARVEST_ACCESS_TOKEN_FILE", path, None, &mut Findings::default()).unwrap_err();
        assert_eq!(
            empty,
            format!(
                "HARVEST_ACCESS_TOKEN_FILE names the file {path}, which is empty; write the secret into it"
            )
        );
        let missing =
            from_file("HARVEST_ACCESS_TOKEN_FILE", "/not/there", None, &mut Findings::default()).unwrap_err();
        assert!(
            missing
                .starts_with("HARVEST_ACCESS_TOKEN_FILE names the file /not/there, which cannot be read: ")
        );
    }

    #[test]
    fn secret_in_place_of_its_file_is_not_shown() {
        for secret in ["1234.pt.canary", "postgres://me:canary@db/roster", "can+ary/+canary="] {
            let fault = from_file("KEY", secret, None, &mut Findings::default()).unwrap_err();
            assert!(fault.starts_with("KEY names a file (not shown") && !fault.contains("canary"), "{fault}");
        }
    }

    #[test]
    fn secret_file_readable_by_all_users_is_warned_about() {
        let file = tempfile::NamedTempFile::new().unwrap();
        fs::write(file.path(), "canary").unwrap();
        let path = file.path().to_str().unwrap();
        for (mode, warned) in [(0o600, false), (0o440, false), (0o644, true), (0o604, true)] {
            fs::set_permissions(file.path(), fs::Permissions::from_mode(mode)).unwrap();
            let mut findings = Findings::default();
            from_file("HARVEST_ACCESS_TOKEN_FILE", path, None, &mut findings).unwrap();
            let sentence = format!(
                "HARVEST_ACCESS_TOKEN_FILE names the file {path}, which every user of this machine may read; \
                 run `chmod o= FILE` on it"
            );
            assert_eq!(findings.warnings, if warned { vec![sentence] } else { vec![] }, "{mode:o}");
        }
    }

    #[test]
    fn tilde_at_the_start_of_a_path_becomes_the_home() {
        assert_eq!(expanded("~/a/b", Some("/home/jo")), Some(PathBuf::from("/home/jo/a/b")));
        assert_eq!(expanded("~", Some("/home/jo")), Some(PathBuf::from("/home/jo/")));
        assert_eq!(expanded("/a/~/b", None), Some(PathBuf::from("/a/~/b")));
        assert_eq!(expanded("~jo/a", None), Some(PathBuf::from("~jo/a")));
        assert_eq!(expanded("~/a", None), None);
    }
}
