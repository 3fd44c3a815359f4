//! What the log says is written down, and nothing else is.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

/// The names in `text` that stand between one of these marks and the next quote.
pub fn names(text: &str, marks: &[&str]) -> BTreeSet<String> {
    marks
        .iter()
        .flat_map(|mark| text.split(mark).skip(1))
        .filter_map(|rest| rest.split_once(['"', '`']).map(|(name, _)| name.to_owned()))
        .collect()
}

fn sources(dir: &Path, text: &mut String) {
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            sources(&path, text);
        } else if !path.ends_with("tests.rs") {
            text.push_str(&fs::read_to_string(&path).unwrap());
        }
    }
}

#[test]
fn every_event_has_its_line_in_the_page_and_no_other_has() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut source = String::new();
    sources(&root.join("src"), &mut source);
    let said = names(&source, &["event = \"", "failed!(error, \"", "failed!(warn, \""]);
    let written = names(&fs::read_to_string(root.join("docs/LOGGING.md")).unwrap(), &["\n| `"]);
    assert!(said.len() > 10, "{said:?}");
    assert_eq!(said, written);
}
