//! Errors and counts as text.

use std::error::Error;

/// A number with its noun, such as `1 row` and `2 rows`.
pub(crate) fn count(number: impl Copy + ToString, noun: &str) -> String {
    let number = number.to_string();
    let plural = if number == "1" { "" } else { "s" };
    format!("{number} {noun}{plural}")
}

/// An error and its causes in one line.
pub fn chain(error: &dyn Error) -> String {
    sentences(error).join(": ")
}

/// An error's sentence, then its causes'. If a library repeats the cause in its own sentence, the repetition is left
/// out.
pub(crate) fn sentences(error: &dyn Error) -> Vec<String> {
    let mut sentences = vec![error.to_string()];
    let mut cause = error.source();
    while let Some(error) = cause {
        let sentence = error.to_string();
        if !sentences.iter().any(|earlier| earlier.contains(&sentence)) {
            sentences.push(sentence);
        }
        cause = error.source();
    }
    sentences
}
