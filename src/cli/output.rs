//! Printing to stdout and stderr that never panics: a closed pipe (`| head`) or a full disk is not a bug in rosterd.

use std::fmt::{self, Display, Formatter, Write as _};
use std::io::{ErrorKind, Write};

use chrono::{DateTime, SecondsFormat, Utc};
use serde::Serialize;

use crate::app::{Exit, Failure};
use crate::telemetry;

/// Prints a line of data to stdout. A closed pipe is no failure.
pub(super) fn print(text: impl Display) -> Result<(), Failure> {
    print_while_read(text).map(drop)
}

/// Like [`print()`]; returns false if the reader has closed the pipe.
pub(super) fn print_while_read(text: impl Display) -> Result<bool, Failure> {
    written(writeln!(std::io::stdout().lock(), "{}", Escaped(text)))
}

/// Prints text that rosterd generated itself, control characters included.
pub(super) fn print_unescaped(text: &[u8]) -> Result<(), Failure> {
    written(std::io::stdout().lock().write_all(text)).map(drop)
}

fn written(result: std::io::Result<()>) -> Result<bool, Failure> {
    match result {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == ErrorKind::BrokenPipe => Ok(false),
        Err(error) => Err(Failure::new(Exit::Internal, format!("cannot write to stdout: {error}"))),
    }
}

pub(super) fn json(document: &impl Serialize) -> Result<(), Failure> {
    print(serde_json::to_string_pretty(document).map_err(|error| Failure::new(Exit::Internal, error))?)
}

/// Prints a result for people: to stderr if stdout is for a JSON document.
pub(super) fn print_unless_json(json: bool, text: impl Display) -> Result<(), Failure> {
    if json {
        message(text);
        return Ok(());
    }
    print(text)
}

/// Prints a line to stderr. A failed write is ignored.
pub(super) fn message(text: impl Display) {
    let _ = telemetry::stderr().write_all(format!("{}\n", Escaped(text)).as_bytes());
}

/// A time in UTC, without fractions of a second.
pub(super) fn seconds(time: DateTime<Utc>) -> String {
    time.to_rfc3339_opts(SecondsFormat::Secs, true)
}

/// Width of the narrowest terminal that output is made for.
const COLUMNS: usize = 80;

/// Breaks a line that is wider than the terminal between words, and indents the following lines by two more columns.
pub(super) fn wrapped(line: &str) -> String {
    if line.chars().count() <= COLUMNS {
        return line.to_owned();
    }
    let indent = line.chars().take_while(|c| *c == ' ').count();
    let mut text = " ".repeat(indent);
    let mut column = indent;
    for word in line.split_whitespace() {
        let width = word.chars().count();
        if column > indent && column + 1 + width > COLUMNS {
            let _ = write!(text, "\n{}", " ".repeat(indent + 2));
            column = indent + 2;
        } else if column > indent {
            text.push(' ');
            column += 1;
        }
        text.push_str(word);
        column += width;
    }
    text
}

/// Text from any source with the characters that control a terminal or change the text direction escaped as in JSON.
/// JSON therefore keeps its meaning.
struct Escaped<T>(T);

impl<T: Display> Display for Escaped<T> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        write!(Escaper(f), "{}", self.0)
    }
}

/// Unicode's direction marks, embeddings, overrides and isolates.
const DIRECTION_CONTROLS: [char; 12] = [
    '\u{61c}', '\u{200e}', '\u{200f}', '\u{202a}', '\u{202b}', '\u{202c}', '\u{202d}', '\u{202e}',
    '\u{2066}', '\u{2067}', '\u{2068}', '\u{2069}',
];

struct Escaper<'a, 'f>(&'a mut Formatter<'f>);

impl fmt::Write for Escaper<'_, '_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        text.chars().try_for_each(|c| match c {
            '\n' => self.0.write_char(c),
            c if c.is_control() || DIRECTION_CONTROLS.contains(&c) => {
                write!(self.0, "\\u{:04x}", u32::from(c))
            }
            c => self.0.write_char(c),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wrapped_breaks_long_lines_between_words() {
        let line = format!("  {}", ["twelve chars"; 12].join(" "));
        let text = wrapped(&line);
        assert!(text.lines().all(|line| line.chars().count() <= 80 && line.starts_with("  ")), "{text}");
        assert_eq!(text.split_whitespace().collect::<Vec<_>>(), line.split_whitespace().collect::<Vec<_>>());
        assert_eq!(wrapped("  short"), "  short");
    }

    #[test]
    fn escaped_text_does_not_control_a_terminal_and_json_keeps_its_meaning() {
        let name = "\u{1b}[2J\u{1b}]0;x\u{7}\u{9b}31m\u{202e}eman\u{7f}\r ü→\n";
        let escaped = Escaped(name).to_string();
        assert_eq!(escaped, "\\u001b[2J\\u001b]0;x\\u0007\\u009b31m\\u202eeman\\u007f\\u000d ü→\n");
        let json = serde_json::to_string(name).unwrap();
        assert_eq!(serde_json::from_str::<String>(&Escaped(json).to_string()).unwrap(), name);
    }
}
