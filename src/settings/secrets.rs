//! Secrets that are mounted as files, and paths under `~`.

use std::{
    fs,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
};

use secrecy::SecretString;

/// The secret in the file `path`, which `key` names. Its error is a whole sentence.
pub(super) fn from_file(
    key: &str,
    path: &str,
    home: Option<&str>,
    warnings: &mut Vec<String>,
) -> Result<SecretString, String> {
    let shown = shown(path);
    let file = expanded(path, home).unwrap_or_else(|| PathBuf::from(path));
    let text = fs::read_to_string(&file).map_err(|error| {
        format!(
            "{key} names {shown}, which cannot be read: {error}; name a text file that this user may read"
        )
    })?;
    // Editors and `echo` end a file with a newline that nobody means.
    let secret = text.trim_end_matches(['\r', '\n']);
    if secret.is_empty() {
        return Err(format!("{key} names {shown}, which is empty; write the secret into it"));
    }
    // No more than a warning: where secrets are mounted for one container, nobody else is there to read them. A group
    // is how a pod's user gets at them.
    if fs::metadata(&file).is_ok_and(|it| it.permissions().mode() & 0o004 != 0) {
        warnings
            .push(format!("{key} names {shown}, which every user of this machine may read: `chmod o= FILE`"));
    }
    Ok(SecretString::from(secret))
}

/// `path` with `~` for `home`. None where there is a `~` and no home.
pub(super) fn expanded(path: &str, home: Option<&str>) -> Option<PathBuf> {
    match path.strip_prefix('~') {
        Some(rest) if rest.is_empty() || rest.starts_with('/') => {
            home.map(|home| Path::new(home).join(rest.trim_start_matches('/')))
        }
        _ => Some(PathBuf::from(path)),
    }
}

/// A path as a sentence may repeat it. Sooner or later somebody puts the secret itself where its file
/// belongs, and neither a token nor a database's URL may then end up in a log.
fn shown(path: &str) -> String {
    let begins = ["/", "~/", "./", "../"].iter().any(|begins| path.starts_with(begins));
    if begins && !path.contains('@') {
        format!("the file {path}")
    } else {
        "a file (not repeated here, as it does not look like a path)".to_owned()
    }
}

#[cfg(test)]
mod tests {
    use secrecy::ExposeSecret;

    use super::*;

    #[test]
    fn the_newline_at_the_end_of_a_file_is_not_part_of_the_secret() {
        let file = tempfile::NamedTempFile::new().unwrap();
        for (text, secret) in [("abc\n", "abc"), ("abc\r\n", "abc"), ("abc", "abc"), (" a\nb \n", " a\nb ")] {
            fs::write(file.path(), text).unwrap();
            let read = from_file("key", file.path().to_str().unwrap(), None, &mut Vec::new()).unwrap();
            assert_eq!(read.expose_secret(), secret);
        }
    }

    #[test]
    fn an_empty_file_and_a_missing_one_are_refused_by_key_and_path() {
        let file = tempfile::NamedTempFile::new().unwrap();
        fs::write(file.path(), "\n").unwrap();
        let path = file.path().to_str().unwrap();
        let empty = from_file("HARVEST_ACCESS_TOKEN_FILE", path, None, &mut Vec::new()).unwrap_err();
        assert_eq!(
            empty,
            format!(
                "HARVEST_ACCESS_TOKEN_FILE names the file {path}, which is empty; write the secret into it"
            )
        );
        let missing =
            from_file("HARVEST_ACCESS_TOKEN_FILE", "/not/there", None, &mut Vec::new()).unwrap_err();
        assert!(
            missing
                .starts_with("HARVEST_ACCESS_TOKEN_FILE names the file /not/there, which cannot be read: ")
        );
    }

    #[test]
    fn a_secret_given_as_its_own_file_is_not_repeated() {
        for secret in ["1234.pt.canary", "postgres://me:canary@db/roster", "can+ary/+canary="] {
            let fault = from_file("KEY", secret, None, &mut Vec::new()).unwrap_err();
            assert!(
                fault.starts_with("KEY names a file (not repeated") && !fault.contains("canary"),
                "{fault}"
            );
        }
    }

    #[test]
    fn a_file_that_everybody_may_read_is_warned_of() {
        let file = tempfile::NamedTempFile::new().unwrap();
        fs::write(file.path(), "canary").unwrap();
        let path = file.path().to_str().unwrap();
        for (mode, warned) in [(0o600, false), (0o440, false), (0o644, true), (0o604, true)] {
            fs::set_permissions(file.path(), fs::Permissions::from_mode(mode)).unwrap();
            let mut warnings = Vec::new();
            from_file("HARVEST_ACCESS_TOKEN_FILE", path, None, &mut warnings).unwrap();
            let sentence = format!(
                "HARVEST_ACCESS_TOKEN_FILE names the file {path}, which every user of this machine may read: \
                 `chmod o= FILE`"
            );
            assert_eq!(warnings, if warned { vec![sentence] } else { vec![] }, "{mode:o}");
        }
    }

    #[test]
    fn a_tilde_is_the_home_and_only_at_the_front() {
        assert_eq!(expanded("~/a/b", Some("/home/jo")), Some(PathBuf::from("/home/jo/a/b")));
        assert_eq!(expanded("~", Some("/home/jo")), Some(PathBuf::from("/home/jo/")));
        assert_eq!(expanded("/a/~/b", None), Some(PathBuf::from("/a/~/b")));
        assert_eq!(expanded("~jo/a", None), Some(PathBuf::from("~jo/a")));
        assert_eq!(expanded("~/a", None), None);
    }
}
