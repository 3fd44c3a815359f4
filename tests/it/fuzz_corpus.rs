//! Runs the fuzz targets on the inputs in `fuzz/corpus` and on variations of them. `PROPTEST_CASES` sets their number.

use std::fs;
use std::path::Path;

use proptest::prelude::*;
use proptest::test_runner::{Config, TestCaseError, TestRunner};

use crate::{untrusted_input, untrusted_scim};

type FuzzTarget = fn(&[u8]);

const FUZZ_TARGETS: [(&str, FuzzTarget); 7] = [
    ("page", untrusted_input::page),
    ("link", untrusted_input::link),
    ("headers", untrusted_input::headers),
    ("settings", untrusted_input::settings),
    ("scim_filter", untrusted_scim::filter),
    ("scim_path", untrusted_scim::path),
    ("scim_patch", untrusted_scim::patch),
];

fn corpus(target: &str) -> Vec<Vec<u8>> {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus").join(target);
    fs::read_dir(dir).unwrap().map(|entry| fs::read(entry.unwrap().path()).unwrap()).collect()
}

#[test]
fn fuzz_corpus_inputs_break_no_invariant() {
    for (name, target) in FUZZ_TARGETS {
        let inputs = corpus(name);
        assert!(inputs.len() > 4, "{name}");
        for input in inputs {
            target(&input);
        }
    }
}

/// A replacement for a part of an input: a word of `fuzz/words`, any text, or any bytes.
fn replacement() -> impl Strategy<Value = Vec<u8>> {
    let words = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/words")).unwrap();
    let word = |line: &str| {
        let word = line.strip_prefix('"')?.strip_suffix('"')?;
        Some(word.replace("\\x0a", "\n").replace("\\\"", "\"").replace("\\\\", "\\").into_bytes())
    };
    let words: Vec<Vec<u8>> = words.lines().filter_map(word).collect();
    prop_oneof![
        prop::sample::select(words),
        any::<String>().prop_map(String::into_bytes),
        prop::collection::vec(any::<u8>(), 0..12)
    ]
}

fn variation(inputs: Vec<Vec<u8>>) -> impl Strategy<Value = Vec<u8>> {
    let edit = (any::<prop::sample::Index>(), 0usize..24, replacement());
    (prop::sample::select(inputs), prop::collection::vec(edit, 0..5)).prop_map(|(mut input, edits)| {
        for (start, length, replacement) in edits {
            let start = start.index(input.len() + 1);
            let end = input.len().min(start + length);
            input.splice(start..end, replacement);
        }
        input
    })
}

#[test]
fn variations_of_fuzz_corpus_inputs_break_no_invariant() {
    for (name, target) in FUZZ_TARGETS {
        let config = Config { failure_persistence: None, ..Config::default() };
        let run = TestRunner::new(config).run(&variation(corpus(name)), |input| {
            target(&input);
            Ok::<_, TestCaseError>(())
        });
        if let Err(failure) = run {
            panic!("{name}: {failure}");
        }
    }
}
