//! The accounts: those of `[[accounts]]` in the settings file, and the one that the `HARVEST_*` variables describe.

use std::collections::BTreeMap;

use config::{Value, ValueKind};
use secrecy::{ExposeSecret, SecretString};

use super::findings::Findings;
use super::model::{Account, Credential};
use super::secrets;
use super::values::{flatten, known_values};

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

/// The variables with the same meaning, in the same order.
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

/// The accounts, and the OAuth2 application whose account id is not set. The environment replaces the account of the
/// file that has the same id.
pub(super) fn read(
    file: Option<&Value>,
    env: &BTreeMap<String, String>,
    findings: &mut Findings,
) -> (Vec<Account>, Option<Credential>) {
    let mut entries = file.map(|accounts| file_entries(accounts, findings)).unwrap_or_default();
    if let Some(entry) = environment_entry(env, findings) {
        match entries.iter_mut().find(|other| other.id == entry.id) {
            // An id without a credential replaces nothing.
            Some(_) if entry.fields.is_empty() => {}
            Some(other) => *other = entry,
            None => entries.push(entry),
        }
    }
    let home = env.get("HOME").map(String::as_str);
    let mut accounts = Vec::new();
    let mut without_account = None;
    for entry in entries {
        let id = entry.id;
        match (id, entry.into_credential(home, findings)) {
            (_, None) => {}
            (Some(id), Some(credential)) => accounts.push(Account { id, credential }),
            (None, credential) => without_account = credential,
        }
    }
    (accounts, without_account)
}

/// An account as the file or the environment describes it, before its credential is checked.
struct Entry {
    /// `None`: an OAuth2 application whose account `rosterd auth login` will find.
    id: Option<i64>,
    /// For sentences.
    source: String,
    /// By the names of [`KEYS`].
    fields: BTreeMap<String, Field>,
}

/// A text and its name in sentences.
struct Field {
    name: String,
    text: String,
}

fn file_entries(accounts: &Value, findings: &mut Findings) -> Vec<Entry> {
    let source = accounts.origin().unwrap_or_default();
    let ValueKind::Array(sections) = &accounts.kind else {
        findings.fault(format!(
            "accounts (from {source}) is not a list; begin each account with a line [[accounts]]"
        ));
        return Vec::new();
    };
    let mut entries: Vec<Entry> = Vec::new();
    for (index, section) in sections.iter().enumerate() {
        let Some(entry) = file_entry(index, source, section, findings) else { continue };
        if entries.iter().any(|other| other.id == entry.id) {
            let id = entry.id.unwrap_or_default();
            findings
                .fault(format!("account {id} (from {source}) is configured twice; keep one of the sections"));
        } else {
            entries.push(entry);
        }
    }
    entries
}

fn file_entry(index: usize, source: &str, section: &Value, findings: &mut Findings) -> Option<Entry> {
    let prefix = format!("accounts[{index}].");
    let ValueKind::Table(table) = &section.kind else {
        findings.fault(format!(
            "accounts[{index}] (from {source}) is not a section; write [[accounts]] above its keys"
        ));
        return None;
    };
    let mut id = None;
    let mut fields = BTreeMap::new();
    let faults_before = findings.faults.len();
    for (key, value) in known_values(flatten(table.clone(), source), &KEYS, &prefix, findings) {
        let name = format!("{prefix}{key} (from {source})");
        match (key.as_str(), value.kind) {
            (ID, ValueKind::I64(number)) if number > 0 => id = Some(number),
            (ID, _) => findings
                .fault(format!("{name} is not an account id; give a positive whole number without quotes")),
            (_, ValueKind::String(text)) if text.is_empty() => {}
            (_, ValueKind::String(text)) => drop(fields.insert(key, Field { name, text })),
            _ => findings.fault(format!("{name} must be text in quotes")),
        }
    }
    if findings.faults.len() > faults_before {
        // A refused key may be the one that seems to be missing.
        return None;
    }
    if id.is_none() {
        findings.fault(format!("{prefix}id (from {source}) is missing; give the id of the Harvest account"));
    }
    Some(Entry { id: Some(id?), source: source.to_owned(), fields })
}

fn environment_entry(env: &BTreeMap<String, String>, findings: &mut Findings) -> Option<Entry> {
    let given = KEYS.into_iter().zip(VARIABLES).filter_map(|(key, name)| {
        let text = env.get(name).filter(|text| !text.is_empty())?.clone();
        Some((key.to_owned(), Field { name: name.to_owned(), text }))
    });
    let mut fields: BTreeMap<_, _> = given.collect();
    let Some(id) = fields.remove(ID) else {
        let first = fields.values().next()?;
        if fields.keys().all(|key| key.starts_with("oauth.")) {
            return Some(Entry { id: None, source: first.name.clone(), fields });
        }
        findings.fault(format!("{} is set without HARVEST_ACCOUNT_ID; set both", first.name));
        return None;
    };
    let Some(number) = id.text.parse().ok().filter(|number| *number > 0) else {
        // The value is not shown: it may be the token.
        findings.fault(format!("{} is not an account id; give a positive whole number", id.name));
        return None;
    };
    Some(Entry { id: Some(number), source: id.name, fields })
}

impl Entry {
    fn into_credential(mut self, home: Option<&str>, findings: &mut Findings) -> Option<Credential> {
        let account = match self.id {
            Some(id) => format!("account {id} (from {})", self.source),
            None => format!("the OAuth2 application (from {})", self.source),
        };
        match (self.has("access_token"), self.has("oauth.")) {
            (true, false) => self.secret("access_token", home, findings).map(Credential::Token),
            (false, true) => self.oauth(&account, home, findings),
            (true, true) => {
                findings.fault(format!("{account} has both an access token and OAuth2; keep one of them"));
                None
            }
            (false, false) => {
                findings
                    .fault(format!("{account} has no credential; give an access token, its file, or OAuth2"));
                None
            }
        }
    }

    fn oauth(&mut self, account: &str, home: Option<&str>, findings: &mut Findings) -> Option<Credential> {
        let missing = match (self.has("oauth.client_id"), self.has("oauth.client_secret")) {
            (true, true) => None,
            (false, _) => Some("id"),
            (true, false) => Some("secret"),
        };
        let client_id = self.fields.remove("oauth.client_id").map(|field| field.value(findings));
        let client_id = client_id.and_then(|read| findings.ok(read));
        let client_secret = self.secret("oauth.client_secret", home, findings);
        let refresh_token = self.secret("oauth.refresh_token", home, findings);
        if let Some(missing) = missing {
            findings
                .fault(format!("{account} has no OAuth2 client {missing}; give client id and client secret"));
        }
        Some(Credential::OAuth { client_id: client_id?, client_secret: client_secret?, refresh_token })
    }

    fn has(&self, prefix: &str) -> bool {
        self.fields.keys().any(|key| key.starts_with(prefix))
    }

    /// The secret in `key` or in the file that `{key}_file` names. `None` if neither is given, or if it is refused.
    fn secret(&mut self, key: &str, home: Option<&str>, findings: &mut Findings) -> Option<SecretString> {
        let file_key = format!("{key}_file");
        let read = match (self.fields.remove(key), self.fields.remove(&file_key)) {
            (Some(plain), Some(file)) => {
                Err(format!("{} and {} are both given; keep one of them", plain.name, file.name))
            }
            (Some(plain), None) => plain.value(findings).map(SecretString::from),
            (None, Some(file)) => {
                secrets::from_file(&file.name, &file.text, home, findings).and_then(|secret| {
                    let name = format!("the secret that {} names", file.name);
                    require_header_safe(&name, secret.expose_secret()).map(|()| secret)
                })
            }
            (None, None) => return None,
        };
        findings.ok(read)
    }
}

impl Field {
    fn value(&self, findings: &mut Findings) -> Result<String, String> {
        let text = secrets::cleaned(&self.name, &self.text, findings);
        require_header_safe(&self.name, text).map(|()| text.to_owned())
    }
}

/// Refuses text that cannot be sent in a header, and text with quotes, which Harvest's tokens never contain. Such text
/// is usually a bad copy.
fn require_header_safe(name: &str, text: &str) -> Result<(), String> {
    if !text.is_empty() && text.chars().all(|c| c.is_ascii_graphic() && !['"', '\'', '`'].contains(&c)) {
        return Ok(());
    }
    Err(format!(
        "{name} is empty or holds spaces, line breaks, quotes or letters that no token has; copy it again"
    ))
}
