//! Printing that never panics: a reader that has gone away (`| head`) or a full disk is no fault of ours.

use std::fmt::{self, Display, Formatter, Write as _};
use std::io::{ErrorKind, IsTerminal, Write};

use serde::Serialize;

use crate::app::{Exit, Failure};
use crate::telemetry;

/// Prints a line of data on stdout. That nobody reads on is fine; that it cannot be written is told.
pub(super) fn line(text: impl Display) -> Result<(), Failure> {
    is_read(text).map(drop)
}

/// The same; tells whether anybody reads on.
pub(super) fn is_read(text: impl Display) -> Result<bool, Failure> {
    written(writeln!(std::io::stdout().lock(), "{}", Tame(text)))
}

/// Prints text of our own as it is.
pub(super) fn script(text: &[u8]) -> Result<(), Failure> {
    written(std::io::stdout().lock().write_all(text)).map(drop)
}

fn written(done: std::io::Result<()>) -> Result<bool, Failure> {
    match done {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == ErrorKind::BrokenPipe => Ok(false),
        Err(error) => {
            Err(Failure::new(Exit::Internal, format!("cannot write the result to stdout: {error}")))
        }
    }
}

/// Prints one JSON document on stdout.
pub(super) fn json(document: &impl Serialize) -> Result<(), Failure> {
    line(serde_json::to_string_pretty(document).map_err(|error| Failure::new(Exit::Internal, error))?)
}

/// Whether a person reads stdout.
pub(super) fn is_terminal() -> bool {
    std::io::stdout().is_terminal()
}

/// An age or a time to wait in its two largest units, such as `3 d 2 h`.
pub(super) fn words(seconds: i64) -> String {
    let (minutes, hours, days) = (seconds / 60, seconds / 3600, seconds / 86_400);
    let two = |large: i64, unit: &str, small: i64, of: &str| match small {
        0 => format!("{large} {unit}"),
        small => format!("{large} {unit} {small} {of}"),
    };
    match seconds {
        ..60 => format!("{} s", seconds.max(0)),
        60..3600 => format!("{minutes} min"),
        3600..86_400 => two(hours, "h", minutes % 60, "min"),
        _ => two(days, "d", hours % 24, "h"),
    }
}

/// Columns of the narrowest terminal.
const COLUMNS: usize = 80;

/// The line, broken between words where it is longer than a terminal is wide. What follows is indented.
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

/// Says something to a person on stderr, if it can be said.
pub(super) fn say(text: impl Display) {
    let _ = telemetry::stderr().write_all(format!("{}\n", Tame(text)).as_bytes());
}

/// Text of whatever origin that does nothing to a terminal: what steers one, or turns the direction in which it is read,
/// is spelt as JSON spells it, so that what is JSON stays the same JSON.
struct Tame<T>(T);

impl<T: Display> Display for Tame<T> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        write!(Spelling(f), "{}", self.0)
    }
}

/// Unicode's marks, embeddings, overrides and isolates of direction.
const TURNS: [char; 12] = [
    '\u{61c}', '\u{200e}', '\u{200f}', '\u{202a}', '\u{202b}', '\u{202c}', '\u{202d}', '\u{202e}',
    '\u{2066}', '\u{2067}', '\u{2068}', '\u{2069}',
];

struct Spelling<'a, 'f>(&'a mut Formatter<'f>);

impl fmt::Write for Spelling<'_, '_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        text.chars().try_for_each(|c| match c {
            '\n' => self.0.write_char(c),
            c if c.is_control() || TURNS.contains(&c) => write!(self.0, "\\u{:04x}", u32::from(c)),
            c => self.0.write_char(c),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ages_are_words_of_two_units() {
        let ages = [-3, 0, 59, 60, 3_599, 3_600, 11_100, 86_399, 86_400, 266_400, 31_536_000].map(words);
        let expected = [
            "0 s",
            "0 s",
            "59 s",
            "1 min",
            "59 min",
            "1 h",
            "3 h 5 min",
            "23 h 59 min",
            "1 d",
            "3 d 2 h",
            "365 d",
        ];
        assert_eq!(ages, expected);
    }

    #[test]
    fn long_lines_are_broken_between_words() {
        let line = format!("  {}", ["twelve chars"; 12].join(" "));
        let text = wrapped(&line);
        assert!(text.lines().all(|line| line.chars().count() <= 80 && line.starts_with("  ")), "{text}");
        assert_eq!(text.split_whitespace().collect::<Vec<_>>(), line.split_whitespace().collect::<Vec<_>>());
        assert_eq!(wrapped("  short"), "  short");
    }

    #[test]
    fn nothing_that_is_printed_steers_a_terminal() {
        let name = "\u{1b}[2J\u{1b}]0;x\u{7}\u{9b}31m\u{202e}eman\u{7f}\r ü→\n";
        let tame = Tame(name).to_string();
        assert_eq!(tame, "\\u001b[2J\\u001b]0;x\\u0007\\u009b31m\\u202eeman\\u007f\\u000d ü→\n");
        let json = serde_json::to_string(name).unwrap();
        assert_eq!(serde_json::from_str::<String>(&Tame(json).to_string()).unwrap(), name);
    }
}
