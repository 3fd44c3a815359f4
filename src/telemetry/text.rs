//! Errors, counts and durations as text.

use std::error::Error;

/// A number with its noun, such as `1 row` and `2 rows`.
pub(crate) fn count(number: impl Copy + ToString, noun: &str) -> String {
    let number = number.to_string();
    let plural = if number == "1" { "" } else { "s" };
    format!("{number} {noun}{plural}")
}

/// A duration in its two largest units, such as `3 d 2 h`.
pub(crate) fn duration(seconds: i64) -> String {
    let (minutes, hours, days) = (seconds / 60, seconds / 3600, seconds / 86_400);
    let two_units = |large: i64, unit: &str, small: i64, small_unit: &str| match small {
        0 => format!("{large} {unit}"),
        small => format!("{large} {unit} {small} {small_unit}"),
    };
    match seconds {
        ..60 => format!("{} s", seconds.max(0)),
        60..3600 => format!("{minutes} min"),
        3600..86_400 => two_units(hours, "h", minutes % 60, "min"),
        _ => two_units(days, "d", hours % 24, "h"),
    }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn duration_has_at_most_two_units() {
        let durations =
            [-3, 0, 59, 60, 3_599, 3_600, 11_100, 86_399, 86_400, 266_400, 31_536_000].map(duration);
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
        assert_eq!(durations, expected);
    }
}
