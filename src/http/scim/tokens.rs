//! The file of bearer tokens. A line is `ACCOUNT NAME read|write TOKEN`, or `sha256:HEX` instead of the token.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use ring::digest::{SHA256, digest};
use ring::rand::{SecureRandom, SystemRandom};
use subtle::{Choice, ConstantTimeEq};

use crate::roster::AccountId;

/// Shorter tokens are refused, because they can be guessed.
const MIN_CHARACTERS: usize = 32;
/// The same as in `roster.scim_ask`.
const MAX_NAME_CHARACTERS: usize = 64;
const NEW_TOKEN_BYTES: usize = 32;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Access {
    Read,
    Write,
}

impl Access {
    fn name(self) -> &'static str {
        match self {
            Self::Read => "read",
            Self::Write => "write",
        }
    }
}

/// A line of the file. The token itself is not kept.
#[derive(Clone, Debug)]
pub(crate) struct Token {
    pub account: AccountId,
    pub name: String,
    pub access: Access,
    hash: [u8; 32],
}

#[derive(Clone, Debug, Default)]
pub(crate) struct Tokens(Vec<Token>);

impl Tokens {
    /// Reads the file.
    ///
    /// # Errors
    /// Names the file and the line, and no token.
    pub(crate) fn read(path: &Path) -> Result<Self, String> {
        let file = format!("scim.tokens_file names {}", path.display());
        let text = fs::read_to_string(path).map_err(|error| {
            format!("{file}, which cannot be read: {error}; name a text file that this user may read")
        })?;
        Self::parse(&text).map_err(|problem| format!("{file}, {problem}"))
    }

    /// Whether every user of this machine may read the file.
    pub(crate) fn is_exposed(path: &Path) -> bool {
        fs::metadata(path).is_ok_and(|metadata| metadata.permissions().mode() & 0o004 != 0)
    }

    fn parse(text: &str) -> Result<Self, String> {
        let mut tokens: Vec<Token> = Vec::new();
        for (line, number) in text.trim_start_matches('\u{feff}').lines().zip(1..) {
            let line = line.trim();
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            let token = Token::parse(line).map_err(|problem| format!("whose line {number} {problem}"))?;
            if tokens.iter().any(|other| other.hash == token.hash) {
                return Err(format!(
                    "whose line {number} repeats the token of an earlier line; remove one of them"
                ));
            }
            tokens.push(token);
        }
        if tokens.is_empty() {
            return Err("which has no token; add a line that `rosterd scim token` prints".to_owned());
        }
        Ok(Self(tokens))
    }

    /// The token of this account. Compares with all lines, so that the time says nothing about them.
    pub(crate) fn find(&self, account: Option<AccountId>, presented: &str) -> Option<&Token> {
        let hash = sha256(presented);
        let account = account.map_or(0, |account| account.0);
        let mut found = None;
        for token in &self.0 {
            let is_it: Choice = token.hash.ct_eq(&hash) & token.account.0.ct_eq(&account);
            if bool::from(is_it) {
                found = Some(token);
            }
        }
        found
    }

    pub(crate) fn accounts(&self) -> BTreeSet<i64> {
        self.0.iter().map(|token| token.account.0).collect()
    }

    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }
}

impl Token {
    fn parse(line: &str) -> Result<Self, String> {
        let words: Vec<_> = line.split_whitespace().collect();
        let [account, name, access, secret] = words.as_slice() else {
            return Err("is not ACCOUNT NAME read|write TOKEN; write these four words".to_owned());
        };
        let account = account.parse().ok().filter(|account| *account > 0);
        let account = account.ok_or("does not begin with the id of a Harvest account")?;
        if !is_name(name) {
            return Err(
                "has a name that is not 1 to 64 letters, digits, dots, hyphens and underscores".to_owned()
            );
        }
        let access = match *access {
            "read" => Access::Read,
            "write" => Access::Write,
            _ => return Err("has a third word that is neither read nor write".to_owned()),
        };
        let hash = match secret.strip_prefix("sha256:") {
            Some(hex) => from_hex(hex).ok_or("has a sha256: that is not 64 hexadecimal digits")?,
            None if secret.len() < MIN_CHARACTERS => {
                return Err(format!(
                    "has a token of less than {MIN_CHARACTERS} characters; `rosterd scim token` makes one"
                ));
            }
            None => sha256(secret),
        };
        Ok(Self { account: AccountId(account), name: (*name).to_owned(), access, hash })
    }
}

pub(crate) fn is_name(name: &str) -> bool {
    let is_allowed = |c: char| c.is_ascii_alphanumeric() || ['.', '-', '_'].contains(&c);
    (1..=MAX_NAME_CHARACTERS).contains(&name.len()) && name.chars().all(is_allowed)
}

fn sha256(text: &str) -> [u8; 32] {
    let mut hash = [0; 32];
    hash.copy_from_slice(digest(&SHA256, text.as_bytes()).as_ref());
    hash
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut hex, byte| {
        let _ = write!(hex, "{byte:02x}");
        hex
    })
}

fn from_hex(hex: &str) -> Option<[u8; 32]> {
    if hex.len() != 64 || !hex.is_ascii() {
        return None;
    }
    let mut bytes = [0; 32];
    for (byte, at) in bytes.iter_mut().zip((0..).step_by(2)) {
        *byte = u8::from_str_radix(hex.get(at..at + 2)?, 16).ok()?;
    }
    Some(bytes)
}

/// A new random token. `None` if the system has no randomness.
pub(crate) fn new_token() -> Option<String> {
    let mut bytes = [0; NEW_TOKEN_BYTES];
    SystemRandom::new().fill(&mut bytes).ok()?;
    Some(hex(&bytes))
}

/// The line of the file for a token, without the token.
pub(crate) fn token_line(account: i64, name: &str, access: Access, token: &str) -> String {
    format!("{account} {name} {} sha256:{}", access.name(), hex(&sha256(token)))
}

#[cfg(test)]
mod tests {
    use super::*;

    const LONG: &str = "0123456789abcdef0123456789abcdef";

    #[test]
    fn token_opens_its_account_only_and_a_printed_line_accepts_its_token() {
        let token = new_token().unwrap();
        let line = token_line(7, "okta", Access::Read, &token);
        assert!(!line.contains(&token), "{line}");
        let tokens = Tokens::parse(&format!("# a comment\n\n7 entra write {LONG}\n{line}\n")).unwrap();
        let find = |account: i64, token: &str| {
            tokens.find(Some(AccountId(account)), token).map(|token| (token.name.as_str(), token.access))
        };
        assert_eq!(find(7, LONG), Some(("entra", Access::Write)));
        assert_eq!(find(7, &token), Some(("okta", Access::Read)));
        assert_eq!((find(8, LONG), find(7, ""), find(7, &LONG[1..])), (None, None, None));
        assert!(tokens.find(None, LONG).is_none());
    }

    #[test]
    fn wrong_lines_are_refused_with_their_number_and_without_the_token() {
        for (line, problem) in [
            (format!("7 entra {LONG}"), "whose line 2 is not ACCOUNT NAME read|write TOKEN"),
            (format!("x entra write {LONG}"), "whose line 2 does not begin with the id"),
            (format!("7 a:b write {LONG}"), "whose line 2 has a name"),
            (format!("7 entra admin {LONG}"), "whose line 2 has a third word"),
            (format!("7 entra write {}", &LONG[1..]), "whose line 2 has a token of less than 32 characters"),
            (format!("7 entra write sha256:{LONG}"), "whose line 2 has a sha256:"),
            (format!("7 a read {LONG}\n8 b read {LONG}"), "whose line 3 repeats the token"),
            (String::new(), "which has no token"),
        ] {
            let fault = Tokens::parse(&format!("#\n{line}")).unwrap_err();
            assert!(fault.starts_with(problem) && !fault.contains(&LONG[..9]), "{fault}");
        }
    }
}
