//! The accounts: those of the file's `[[accounts]]`, and the one that the `HARVEST_*` variables describe.

use std::collections::BTreeMap;

use config::{Value, ValueKind};
use secrecy::{ExposeSecret, SecretString};

use super::{Account, Credential, layers, secrets, unknown};

/// What a section of `[[accounts]]` may hold.
const KEYS: [&str; 8] = [
    ID,
    "access_token",
    "access_token_file",
    "oauth.client_id",
    "oauth.client_secret",
    "oauth.client_secret_file",
    "oauth.refresh_token",
    "oauth.refresh_token_file",
];
const ID: &str = "id";

/// The same, as the environment calls them.
pub(super) const VARIABLES: [&str; 8] = [
    "HARVEST_ACCOUNT_ID",
    "HARVEST_ACCESS_TOKEN",
    "HARVEST_ACCESS_TOKEN_FILE",
    "HARVEST_OAUTH_CLIENT_ID",
    "HARVEST_OAUTH_CLIENT_SECRET",
    "HARVEST_OAUTH_CLIENT_SECRET_FILE",
    "HARVEST_OAUTH_REFRESH_TOKEN",
    "HARVEST_OAUTH_REFRESH_TOKEN_FILE",
];

/// Reads both sources and lays the environment's account over the file's one of the same id. Beside the accounts: the
/// credential of one that has no number yet.
pub(super) fn read(
    file: Option<&(String, Value)>,
    env: &BTreeMap<String, String>,
    faults: &mut Vec<String>,
    warnings: &mut Vec<String>,
) -> (Vec<Account>, Option<Credential>) {
    let mut described = file.map(|(source, value)| in_file(source, value, faults)).unwrap_or_default();
    if let Some(one) = in_environment(env, faults) {
        match described.iter_mut().find(|other| other.id == one.id) {
            // The number alone says nothing new.
            Some(_) if one.credential.is_empty() => {}
            Some(other) => *other = one,
            None => described.push(one),
        }
    }
    let home = env.get("HOME").map(String::as_str);
    let mut unnumbered = None;
    let accounts = described.into_iter().filter_map(|one| {
        let (id, credential) = (one.id, one.credential(home, faults, warnings)?);
        if id.is_none() {
            unnumbered = Some(credential);
            return None;
        }
        Some(Account { id: id?, credential })
    });
    (accounts.collect(), unnumbered)
}

/// An account as somebody wrote it down.
struct Described {
    /// None: an OAuth2 application whose account `rosterd auth login` will find.
    id: Option<i64>,
    /// Where, for sentences.
    source: String,
    /// By the names of [`KEYS`].
    credential: BTreeMap<&'static str, Given>,
}

/// A text and what sentences call it.
struct Given {
    name: String,
    text: String,
}

fn in_file(source: &str, value: &Value, faults: &mut Vec<String>) -> Vec<Described> {
    let ValueKind::Array(sections) = &value.kind else {
        faults.push(format!(
            "accounts (from {source}) is not a list; begin each account with a line [[accounts]]"
        ));
        return Vec::new();
    };
    let mut described: Vec<Described> = Vec::new();
    for (index, section) in sections.iter().enumerate() {
        let Some(one) = in_section(index, source, section, faults) else { continue };
        if described.iter().any(|other| other.id == one.id) {
            let id = one.id.unwrap_or_default();
            faults.push(format!("account {id} (from {source}) is there twice; keep one of the sections"));
        } else {
            described.push(one);
        }
    }
    described
}

fn in_section(index: usize, source: &str, section: &Value, faults: &mut Vec<String>) -> Option<Described> {
    let prefix = format!("accounts[{index}].");
    let ValueKind::Table(table) = &section.kind else {
        faults.push(format!(
            "accounts[{index}] (from {source}) is not a section; write [[accounts]] above its keys"
        ));
        return None;
    };
    let mut id = None;
    let before = faults.len();
    let mut credential = BTreeMap::new();
    for (key, value) in layers::flatten(table.clone()) {
        let name = format!("{prefix}{key} (from {source})");
        match (KEYS.into_iter().find(|known| *known == key), value.kind) {
            (None, _) => faults.push(unknown::sentence(&key, source, KEYS.into_iter(), &prefix)),
            (Some(ID), ValueKind::I64(number)) if number > 0 => id = Some(number),
            (Some(ID), _) => faults
                .push(format!("{name} is not an account's number; give a positive whole number, unquoted")),
            (Some(_), ValueKind::String(text)) if text.is_empty() => {}
            (Some(known), ValueKind::String(text)) => drop(credential.insert(known, Given { name, text })),
            (Some(_), _) => faults.push(format!("{name} must be text in quotes")),
        }
    }
    if faults.len() > before {
        // What else seems missing may be what was just refused.
        return None;
    }
    if id.is_none() {
        faults.push(format!("{prefix}id (from {source}) is missing; give the number of the Harvest account"));
    }
    Some(Described { id: Some(id?), source: source.to_owned(), credential })
}

fn in_environment(env: &BTreeMap<String, String>, faults: &mut Vec<String>) -> Option<Described> {
    let mut credential: BTreeMap<_, _> = KEYS
        .into_iter()
        .zip(VARIABLES)
        .filter_map(|(key, name)| {
            let text = env.get(name).filter(|text| !text.is_empty())?.clone();
            Some((key, Given { name: name.to_owned(), text }))
        })
        .collect();
    let Some(given) = credential.remove(ID) else {
        let first = credential.values().next()?;
        if credential.keys().all(|key| key.starts_with("oauth.")) {
            return Some(Described { id: None, source: first.name.clone(), credential });
        }
        faults.push(format!("{} is set without HARVEST_ACCOUNT_ID; set both", first.name));
        return None;
    };
    let Some(id) = given.text.parse().ok().filter(|id| *id > 0) else {
        // Not repeated: the token is what gets pasted here by mistake.
        faults.push(format!("{} is not an account's number; give a positive whole number", given.name));
        return None;
    };
    Some(Described { id: Some(id), source: given.name, credential })
}

impl Described {
    fn credential(
        mut self,
        home: Option<&str>,
        faults: &mut Vec<String>,
        warnings: &mut Vec<String>,
    ) -> Option<Credential> {
        let who = match self.id {
            Some(id) => format!("account {id} (from {})", self.source),
            None => format!("the OAuth2 application (from {})", self.source),
        };
        let oauth = self.credential.keys().any(|key| key.starts_with("oauth."));
        let token = self.credential.keys().any(|key| key.starts_with("access_token"));
        match (token, oauth) {
            (true, false) => self
                .secret("access_token", "access_token_file", home, faults, warnings)
                .map(Credential::Token),
            (false, true) => {
                let id_given = self.credential.contains_key("oauth.client_id");
                let client_id = self.plain("oauth.client_id", faults, warnings);
                let secret_given = self.credential.keys().any(|key| key.starts_with("oauth.client_secret"));
                let client_secret =
                    self.secret("oauth.client_secret", "oauth.client_secret_file", home, faults, warnings);
                let refresh_token =
                    self.secret("oauth.refresh_token", "oauth.refresh_token_file", home, faults, warnings);
                if !id_given || !secret_given {
                    let missing = if id_given { "client secret" } else { "client id" };
                    faults.push(format!("{who} has no OAuth2 {missing}; give client id and client secret"));
                }
                Some(Credential::OAuth {
                    client_id: client_id?,
                    client_secret: client_secret?,
                    refresh_token,
                })
            }
            (true, true) => {
                faults.push(format!("{who} has both an access token and OAuth2; keep one of them"));
                None
            }
            (false, false) => {
                faults.push(format!("{who} has no credential; give an access token, its file, or OAuth2"));
                None
            }
        }
    }

    /// The secret given plainly or as a file. None where there is none, or none that will do.
    fn secret(
        &mut self,
        plain: &str,
        file: &str,
        home: Option<&str>,
        faults: &mut Vec<String>,
        warnings: &mut Vec<String>,
    ) -> Option<SecretString> {
        let read = match (self.credential.remove(plain), self.credential.remove(file)) {
            (Some(plain), Some(file)) => {
                Err(format!("{} and {} are both given; keep one of them", plain.name, file.name))
            }
            (Some(plain), None) => plain.value(warnings).map(SecretString::from),
            (None, Some(file)) => secrets::from_file(&file.name, &file.text, home, warnings)
                .and_then(|secret| header_safe(&format!("the secret that {} names", file.name), secret)),
            (None, None) => return None,
        };
        read.map_err(|fault| faults.push(fault)).ok()
    }

    /// What is no secret, but copied from the same page.
    fn plain(&mut self, key: &str, faults: &mut Vec<String>, warnings: &mut Vec<String>) -> Option<String> {
        let value = self.credential.remove(key)?.value(warnings);
        value.map_err(|fault| faults.push(fault)).ok()
    }
}

impl Given {
    /// The text as it was meant, or why it will not do.
    fn value(&self, warnings: &mut Vec<String>) -> Result<String, String> {
        let text = secrets::cleaned(&self.name, &self.text, warnings);
        is_header_safe(text).then(|| text.to_owned()).ok_or_else(|| unsafe_in_headers(&self.name))
    }
}

fn header_safe(name: &str, secret: SecretString) -> Result<SecretString, String> {
    if is_header_safe(secret.expose_secret()) { Ok(secret) } else { Err(unsafe_in_headers(name)) }
}

/// Tokens travel in a header, which takes no spaces, line breaks or accents; no token of Harvest's holds a quote. All of
/// them are signs of a bad copy.
fn is_header_safe(text: &str) -> bool {
    !text.is_empty() && text.chars().all(|c| c.is_ascii_graphic() && !['"', '\'', '`'].contains(&c))
}

fn unsafe_in_headers(name: &str) -> String {
    format!(
        "{name} is empty or holds spaces, line breaks, quotes or letters that no token has; copy it again"
    )
}
