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
    let text = text.trim_end_matches(['\r', '\n']);
    let secret = bare(text);
    if secret.len() < text.len() {
        warnings.push(format!("{key} names {shown}, which has {AROUND} the secret; {LEFT_OUT}"));
    }
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

const AROUND: &str = "quotes or white space around";
const LEFT_OUT: &str = "rosterd leaves them out";

/// Pairs of quotes, as shells and TOML have them and as word processors set them.
const QUOTES: [(char, char); 4] =
    [('"', '"'), ('\'', '\''), ('\u{201c}', '\u{201d}'), ('\u{2018}', '\u{2019}')];

/// `text` without the white space and the pairs of quotes around it. `docker --env-file` passes quotes on, and files
/// that were saved on Windows leave a carriage return.
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

/// The same for a value that sentences call `name`, with a warning if there was something around it.
pub(super) fn cleaned<'t>(name: &str, text: &'t str, warnings: &mut Vec<String>) -> &'t str {
    let value = bare(text);
    if value.len() < text.len() {
        warnings.push(format!("{name} has {AROUND} its value; {LEFT_OUT}"));
    }
    value
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
    fn newline_quotes_and_white_space_around_the_secret_of_a_file_are_left_out() {
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
            let mut warnings = Vec::new();
            let read = from_file("KEY", path, None, &mut warnings).unwrap();
            assert_eq!(read.expose_secret(), secret);
            let sentence = format!(
                "KEY names the file {path}, which has quotes or white space around the secret; \
                 rosterd leaves them out"
            );
            assert_eq!(warnings, if warned { vec![sentence] } else { vec![] }, "{text:?}");
        }
    }

    #[test]
    fn an_empty_file_and_a_missing_one_are_refused_by_key_and_path() {
        let file = tempfile::NamedTempFile::new().unwrap();
        fs::write(file.path(), "\"\"\n").unwrap();
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
