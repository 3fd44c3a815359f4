//! Globs over the types of events: `*` is any text, `?` any character.

use crate::roster::event;

/// The types of events that the glob matches; an error that lists all types if it matches none.
pub(crate) fn matching_types(glob: &str) -> Result<Vec<String>, String> {
    let all = event::types();
    let matching: Vec<_> =
        all.iter().filter(|known| matches(glob.as_bytes(), known.as_bytes())).cloned().collect();
    if matching.is_empty() {
        return Err(format!("no event type matches; the types are {}", all.join(", ")));
    }
    Ok(matching)
}

fn matches(glob: &[u8], text: &[u8]) -> bool {
    match glob.split_first() {
        None => text.is_empty(),
        Some((b'*', rest)) => (0..=text.len()).any(|skipped| matches(rest, &text[skipped..])),
        Some((wanted, rest)) => text
            .split_first()
            .is_some_and(|(letter, text)| [b'?', *letter].contains(wanted) && matches(rest, text)),
    }
}

#[cfg(test)]
mod tests {
    use super::matching_types;

    #[test]
    fn type_glob_must_match_a_whole_event_type() {
        for (glob, count) in [
            ("*", 16),
            ("user.*", 5),
            ("*.deleted", 4),
            ("cost_rate.?reated", 1),
            ("user.created", 1),
            ("user", 0),
            ("users.*", 0),
            ("billable_rate.deactivated", 0),
            ("", 0),
        ] {
            assert_eq!(matching_types(glob).map_or(0, |types| types.len()), count, "{glob}");
        }
    }
}
