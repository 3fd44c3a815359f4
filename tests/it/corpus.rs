//! The doors under the inputs that are kept, and under variations of them. `PROPTEST_CASES` says how many.

use std::fs;
use std::path::Path;

use proptest::prelude::*;
use proptest::test_runner::{Config, TestCaseError, TestRunner};

use crate::doors;

type Door = fn(&[u8]);

const DOORS: [(&str, Door); 4] = [
    ("page", doors::page),
    ("link", doors::link),
    ("headers", doors::headers),
    ("settings", doors::settings),
];

fn kept(door: &str) -> Vec<Vec<u8>> {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus").join(door);
    fs::read_dir(dir).unwrap().map(|entry| fs::read(entry.unwrap().path()).unwrap()).collect()
}

#[test]
fn what_is_kept_does_no_harm() {
    for (name, door) in DOORS {
        let inputs = kept(name);
        assert!(inputs.len() > 4, "{name}");
        for input in inputs {
            door(&input);
        }
    }
}

/// What is put in the place of something else: any bytes, or what has a meaning.
fn odd() -> impl Strategy<Value = Vec<u8>> {
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

fn varied(kept: Vec<Vec<u8>>) -> impl Strategy<Value = Vec<u8>> {
    let edit = (any::<prop::sample::Index>(), 0usize..24, odd());
    (prop::sample::select(kept), prop::collection::vec(edit, 0..5)).prop_map(|(mut input, edits)| {
        for (at, length, odd) in edits {
            let at = at.index(input.len() + 1);
            let end = input.len().min(at + length);
            input.splice(at..end, odd);
        }
        input
    })
}

#[test]
fn what_comes_near_it_does_no_harm_either() {
    for (name, door) in DOORS {
        let config = Config { failure_persistence: None, ..Config::default() };
        let run = TestRunner::new(config).run(&varied(kept(name)), |input| {
            door(&input);
            Ok::<_, TestCaseError>(())
        });
        if let Err(fault) = run {
            panic!("{name}: {fault}");
        }
    }
}
