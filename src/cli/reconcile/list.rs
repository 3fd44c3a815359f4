//! Decodes the list of desired users: CSV or JSON lines. Each error names its line and holds no value.

use csv::{ReaderBuilder, StringRecord};
use serde::Deserialize;
use serde_json::Value;

use crate::roster::reconcile::{Desired, LineError};

/// The columns of CSV, which are also the keys of a JSON line.
const COLUMNS: [&str; 5] = ["email", "first_name", "last_name", "active", "telephone"];

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ListFormat {
    Csv,
    JsonLines,
}

impl ListFormat {
    /// By the extension of the file, or else by the first byte that is not blank.
    pub(super) fn of(extension: Option<&str>, content: &[u8]) -> Self {
        match extension.map(str::to_ascii_lowercase).as_deref() {
            Some("json" | "jsonl" | "ndjson") => Self::JsonLines,
            Some("csv") => Self::Csv,
            _ if without_bom(content).trim_ascii_start().starts_with(b"{") => Self::JsonLines,
            _ => Self::Csv,
        }
    }
}

fn without_bom(content: &[u8]) -> &[u8] {
    content.strip_prefix("\u{feff}".as_bytes()).unwrap_or(content)
}

/// Decodes all lines.
///
/// # Errors
/// The errors of all lines. A list without data lines is an error.
pub(super) fn decode(content: &[u8], format: ListFormat) -> Result<Vec<Desired>, Vec<LineError>> {
    let content = without_bom(content);
    let text = std::str::from_utf8(content).map_err(|error| {
        let line = 1 + newlines(&content[..error.valid_up_to()]);
        vec![LineError::new(line, "is not UTF-8")]
    })?;
    let (lines, mut errors) = match format {
        ListFormat::Csv => decode_csv(text),
        ListFormat::JsonLines => decode_json_lines(text),
    };
    if lines.is_empty() && errors.is_empty() {
        errors.push(LineError::new(1 + newlines(content), "the list ends without a user"));
    }
    if errors.is_empty() { Ok(lines) } else { Err(errors) }
}

fn newlines(bytes: &[u8]) -> u64 {
    bytes.iter().map(|byte| u64::from(*byte == b'\n')).sum()
}

type Decoded = (Vec<Desired>, Vec<LineError>);

fn decode_csv(text: &str) -> Decoded {
    let (mut lines, mut errors) = (Vec::new(), Vec::new());
    let mut reader = ReaderBuilder::new().has_headers(false).flexible(true).from_reader(text.as_bytes());
    let mut columns: Option<Vec<usize>> = None;
    let (mut end, mut line) = (0, 1);
    let mut record = StringRecord::new();
    loop {
        match reader.read_record(&mut record) {
            Ok(true) => {}
            Ok(false) => break,
            Err(_) => {
                errors.push(LineError::new(line, "is not CSV"));
                break;
            }
        }
        let next = usize::try_from(reader.position().byte()).unwrap_or(text.len()).min(text.len());
        let source = &text.as_bytes()[end..next];
        end = next;
        // The reader skips empty lines before a record.
        let number = line + newlines(&source[..source.len() - source.trim_ascii_start().len()]);
        line += newlines(source);
        // The reader ends a quote that is open at the end of the text.
        if source.iter().fold(false, |is_open, byte| is_open != (*byte == b'"')) {
            errors.push(LineError::new(number, "a quotation mark is not closed"));
            continue;
        }
        let Some(columns) = &columns else {
            match header(&record) {
                Ok(header) => columns = Some(header),
                Err(problem) => {
                    errors.push(LineError::new(number, problem));
                    break;
                }
            }
            continue;
        };
        match csv_line(&record, columns, number) {
            Ok(desired) => lines.extend(desired),
            Err(problem) => errors.push(LineError::new(number, problem)),
        }
    }
    (lines, errors)
}

/// For each field of a record the index of its column. The names are not printed, because the first line of a list
/// without a header holds values.
fn header(record: &StringRecord) -> Result<Vec<usize>, String> {
    let mut columns = Vec::new();
    for (at, name) in record.iter().enumerate() {
        let known = COLUMNS.iter().position(|column| *column == name.trim());
        let Some(known) = known else {
            let known = COLUMNS.join(", ");
            return Err(format!(
                "the name of column {} is unknown; the first line must name columns of: {known}",
                at + 1
            ));
        };
        if columns.contains(&known) {
            return Err(format!("names the column {} twice", COLUMNS[known]));
        }
        columns.push(known);
    }
    if columns.contains(&0) { Ok(columns) } else { Err("the column email is missing".to_owned()) }
}

fn csv_line(record: &StringRecord, columns: &[usize], line: u64) -> Result<Option<Desired>, String> {
    if record.len() != columns.len() {
        return Err(format!("has {} instead of {} fields", record.len(), columns.len()));
    }
    // A blank line is no user.
    if record.len() > 1 && record.iter().all(|field| field.trim().is_empty()) {
        return Ok(None);
    }
    let mut fields = [const { None }; COLUMNS.len()];
    for (field, column) in record.iter().zip(columns) {
        fields[*column] = Some(field.to_owned());
    }
    let [email, first_name, last_name, active, telephone] = fields;
    let active = active.map_or(Ok(None), |active| flag(&active))?;
    desired(line, email, [first_name, last_name, telephone], active).map(Some)
}

fn desired(
    line: u64,
    email: Option<String>,
    names: [Option<String>; 3],
    active: Option<bool>,
) -> Result<Desired, String> {
    let [first_name, last_name, telephone] = names.map(filled);
    let email = filled(email).ok_or("email is missing or empty")?;
    Ok(Desired { line, email, first_name, last_name, active, telephone })
}

/// An empty value stays as it is at Harvest.
fn filled(value: Option<String>) -> Option<String> {
    value.filter(|value| !value.trim().is_empty())
}

fn flag(text: &str) -> Result<Option<bool>, String> {
    match text.trim().to_ascii_lowercase().as_str() {
        "" => Ok(None),
        // PostgreSQL writes t and f.
        "true" | "t" | "yes" | "y" | "1" => Ok(Some(true)),
        "false" | "f" | "no" | "n" | "0" => Ok(Some(false)),
        _ => Err("active must be true or false, yes or no, or 1 or 0".to_owned()),
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct JsonLine {
    email: Option<String>,
    first_name: Option<String>,
    last_name: Option<String>,
    active: Option<Value>,
    telephone: Option<String>,
}

fn decode_json_lines(text: &str) -> Decoded {
    let (mut lines, mut errors) = (Vec::new(), Vec::new());
    for (number, line) in (1..).zip(text.lines()).filter(|(_, line)| !line.trim().is_empty()) {
        match json_line(line, number) {
            Ok(desired) => lines.push(desired),
            Err(problem) => errors.push(LineError::new(number, problem)),
        }
    }
    (lines, errors)
}

fn json_line(line: &str, number: u64) -> Result<Desired, String> {
    let JsonLine { email, first_name, last_name, active, telephone } =
        serde_json::from_str(line).map_err(|error| match error.classify() {
            serde_json::error::Category::Data => {
                let known = COLUMNS.join(", ");
                format!("has a key twice, a value that is no text, or a key that is not one of: {known}")
            }
            _ => "is not one complete JSON object".to_owned(),
        })?;
    let active = match active {
        None | Some(Value::Null) => None,
        Some(Value::Bool(active)) => Some(active),
        Some(Value::String(text)) => flag(&text)?,
        Some(other) => flag(&other.to_string())?,
    };
    desired(number, email, [first_name, last_name, telephone], active)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn csv(text: &str) -> Result<Vec<Desired>, String> {
        decode(text.as_bytes(), ListFormat::Csv).map_err(|errors| shown(&errors))
    }

    fn json_lines(text: &str) -> Result<Vec<Desired>, String> {
        decode(text.as_bytes(), ListFormat::JsonLines).map_err(|errors| shown(&errors))
    }

    fn shown(errors: &[LineError]) -> String {
        errors.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n")
    }

    fn ada(line: u64) -> Desired {
        Desired {
            line,
            email: "ada@example.com".to_owned(),
            last_name: Some("King, Countess".to_owned()),
            active: Some(true),
            ..Desired::default()
        }
    }

    #[test]
    fn csv_and_json_lines_give_the_same_users_and_line_numbers() {
        let table = "\u{feff}active,email,last_name,telephone\r\n\r\nt,ada@example.com,\"King, Countess\",\r\n,,,\r\n \
                     ,bob@example.com, ,1\r\n";
        let lines = "\u{feff}\n\n{\"email\": \"ada@example.com\", \"last_name\": \"King, Countess\", \"active\": 1}\n\n\
                     {\"email\": \"bob@example.com\", \"first_name\": null, \"last_name\": \"\", \"telephone\": \"1\"}";
        let bob = Desired {
            line: 5,
            email: "bob@example.com".to_owned(),
            telephone: Some("1".to_owned()),
            ..Desired::default()
        };
        for decoded in [csv(table), json_lines(lines)] {
            assert!(decoded == Ok(vec![ada(3), bob.clone()]));
        }
    }

    #[test]
    fn unusable_csv_is_refused_with_line_numbers_and_without_values() {
        for (text, error) in [
            ("", "line 1: the list ends without a user"),
            ("email,active\n", "line 2: the list ends without a user"),
            ("email\n\n\n", "line 4: the list ends without a user"),
            ("active\ntrue\n", "line 1: the column email is missing"),
            ("email,email\n", "line 1: names the column email twice"),
            ("email,active\na@b,true\nb@c,tr", "line 3: active must be true or false, yes or no, or 1 or 0"),
            (
                "email,active\na@b\nb@c,1,2\n",
                "line 2: has 1 instead of 2 fields\nline 3: has 3 instead of 2 fields",
            ),
            ("email,telephone\na@b,\"12\nb@c,1\n", "line 2: a quotation mark is not closed"),
            ("email,telephone\na@b,1\nb@c,\"12", "line 3: a quotation mark is not closed"),
            ("email,active\n,true\n", "line 2: email is missing or empty"),
        ] {
            assert_eq!(csv(text).err().as_deref(), Some(error), "{text}");
        }
        let unknown = csv("ada@example.com,Ada\n").expect_err("no header");
        assert!(
            unknown.starts_with("line 1: the name of column 1 is unknown") && !unknown.contains('@'),
            "{unknown}"
        );
        let invalid = decode(b"email\nada@example.com\n\xff@b\n", ListFormat::Csv).expect_err("not UTF-8");
        assert_eq!(shown(&invalid), "line 3: is not UTF-8");
    }

    #[test]
    fn unusable_json_lines_are_refused_with_line_numbers_and_without_values() {
        let (cut, data) = ("is not one complete JSON object", "has a key twice");
        for (line, error) in [
            ("{\"email\": \"ada@example.com\", \"acti", cut),
            ("{\"email\": \"ada@example.com\"} {}", cut),
            ("{\"email\": \"ada@example.com\", \"emial\": \"x\"}", data),
            ("{\"email\": \"ada@example.com\", \"email\": \"x\"}", data),
            ("{\"email\": 7}", data),
            ("{\"email\": \"ada@example.com\", \"active\": [true]}", "active must be"),
            ("{\"active\": true}", "email is missing"),
        ] {
            let refused = json_lines(&format!("{{\"email\": \"a@b\"}}\n{line}\n")).expect_err("an error");
            assert!(refused.starts_with(&format!("line 2: {error}")), "{line}: {refused}");
            assert!(!refused.contains("ada"), "{refused}");
        }
    }

    #[test]
    fn format_follows_the_extension_or_the_first_byte() {
        let of = |extension, content: &str| ListFormat::of(extension, content.as_bytes());
        assert_eq!(of(Some("JSONL"), "email"), ListFormat::JsonLines);
        assert_eq!(of(Some("csv"), "{"), ListFormat::Csv);
        assert_eq!(of(None, "\u{feff} \n{\"email\""), ListFormat::JsonLines);
        assert_eq!(of(Some("txt"), "email"), ListFormat::Csv);
    }
}
