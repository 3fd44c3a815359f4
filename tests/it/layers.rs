//! Rules about files: imports point one way and form no cycle, `roster` and `scim` are pure, no file is too long.
//! The scan reads text, not syntax. It resolves `crate`, `super`, `self`, child modules, braces and re-exports.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;

/// Each line: top-level modules, and the modules that each of them may import.
const MAY_IMPORT: &str = "\
clock outbound progress roster telemetry main:
settings: roster outbound telemetry
harvest: roster outbound clock progress telemetry
download: outbound
store: download scim roster clock progress telemetry
scim: roster
sync: harvest store roster clock progress telemetry
webhooks: store outbound clock telemetry
provision: sync harvest store roster clock progress telemetry
daemon: provision sync harvest store roster outbound clock progress telemetry
http: daemon sync store scim roster clock progress telemetry
app: http daemon webhooks provision sync harvest store download scim roster outbound clock progress telemetry settings
cli: app http daemon webhooks provision sync harvest store scim roster clock progress telemetry settings";
/// `roster` and `scim` await nothing, and use no clock, file, network or random number.
const IMPURE: &str =
    "async await tokio futures sqlx reqwest axum tracing rand:: std::fs std::net std::env Instant SystemTime";

struct File {
    path: String,
    module: String,
    /// Without comments.
    code: String,
}

fn files(dir: &str) -> Vec<File> {
    let mut files = Vec::new();
    for entry in fs::read_dir(dir).unwrap().map(Result::unwrap) {
        let path = format!("{dir}/{}", entry.file_name().to_string_lossy());
        if entry.file_type().unwrap().is_dir() {
            files.extend(self::files(&path));
        } else if entry.path().extension().is_some_and(|extension| extension == "rs") {
            let text = fs::read_to_string(entry.path()).unwrap();
            let lines = text.lines().map(|line| line.split_once("//").map_or(line, |(code, _)| code));
            let name = path.trim_end_matches(".rs").trim_end_matches("/mod").trim_end_matches("lib");
            let module = name.split_once('/').unwrap().1.replace('/', "::");
            files.push(File { module, code: lines.collect::<Vec<_>>().join("\n"), path });
        }
    }
    files
}

/// The path that `text` begins with, or several if it has braces; and the text after it.
fn paths(text: &str) -> (Vec<String>, &str) {
    let is_end = |c: char| !c.is_alphanumeric() && c != '_' && c != ':';
    let (stem, mut rest) = text.split_at(text.find(is_end).unwrap_or(text.len()));
    if !rest.starts_with('{') || !(stem.is_empty() || stem.ends_with("::")) {
        return (vec![stem.to_owned()], rest);
    }
    let mut all = Vec::new();
    while !rest.starts_with('}') {
        let (ends, after) = paths(rest[1..].trim_start());
        all.extend(ends.iter().map(|end| format!("{stem}{end}")));
        rest = &after[after.find([',', '}']).unwrap()..];
    }
    (all, &rest[1..])
}

/// The paths in `code`, as they would lead from the root of this crate; and whether each is re-exported.
fn imports(code: &str, module: &str) -> Vec<(String, bool)> {
    let (mut found, mut at) = (Vec::new(), 0);
    while let Some(next) = code[at..].find("::").map(|next| at + next) {
        let before = code[at..next].trim_end_matches(|c: char| c == '_' || c.is_alphanumeric());
        let (some, rest) = paths(&code[at + before.len()..]);
        at = code.len() - rest.len();
        let statement = before.trim_end().rsplit(['\n', ';']).next().unwrap();
        let is_export = statement.starts_with("pub") && statement.ends_with("use");
        for path in &some {
            let (mut base, mut rest) = (module, path.as_str());
            while let Some((first, after)) = rest.split_once("::") {
                base = match first {
                    "super" => base.rsplit_once("::").map_or("", |it| it.0),
                    "self" => base,
                    "crate" => "",
                    "rosterd" if module == "main" => "",
                    _ => break,
                };
                rest = after;
            }
            found.push((format!("{base}::{rest}").trim_matches(':').to_owned(), is_export));
        }
    }
    found
}

/// For each file, the files that its code imports. The file that defines an item counts, not one that re-exports it.
fn graph(files: &[File]) -> Vec<BTreeSet<usize>> {
    let modules: BTreeMap<_, _> = files.iter().zip(0..).map(|(it, at)| (it.module.as_str(), at)).collect();
    let code = |file: &File| file.code.split("\n#[cfg(test)]\nmod tests {").next().unwrap().to_owned();
    let imports: Vec<_> = files.iter().map(|file| imports(&code(file), &file.module)).collect();
    let defined_in = |mut path: String| loop {
        let mut module = path.as_str();
        while !modules.contains_key(module) {
            module = module.rsplit_once("::")?.0;
        }
        let (file, name) = (modules[module], path[module.len()..].split("::").nth(1));
        let is_it = |it: &&(String, bool)| it.1 && it.0 != path && it.0.rsplit("::").next() == name;
        let Some((to, _)) = imports[file].iter().find(is_it) else { return Some(file) };
        path = to.clone();
    };
    let of = |file: usize| imports[file].iter().filter(|it| !it.1).filter_map(|it| defined_in(it.0.clone()));
    (0..files.len()).map(|file| of(file).filter(|to| *to != file).collect()).collect()
}

#[test]
fn top_level_modules_import_only_modules_below_them() {
    let has = |list: &str, module: &str| list.split(' ').any(|it| it == module);
    let may_import: Vec<_> = MAY_IMPORT.lines().filter_map(|line| line.split_once(':')).collect();
    for File { path, module, code } in files("src").iter().filter(|it| !it.module.is_empty()) {
        let top = module.split("::").next().unwrap();
        let (_, allowed) = may_import.iter().find(|it| has(it.0, top)).expect(path);
        for (to, _) in imports(code, module) {
            let target = to.split("::").next().unwrap();
            let is_item = !may_import.iter().any(|it| has(it.0, target));
            assert!(is_item || target == top || has(allowed, target), "{path} imports {to}; see src/lib.rs");
        }
    }
}

#[test]
fn files_do_not_import_each_other_in_cycles() {
    let (files, mut cyclic) = (files("src"), BTreeSet::new());
    let graph = graph(&files);
    for file in 0..files.len() {
        let (mut seen, mut next) = (BTreeSet::new(), vec![file]);
        while let Some(at) = next.pop() {
            next.extend(graph[at].iter().filter(|to| seen.insert(**to)));
        }
        cyclic.extend(Some(file).filter(|_| seen.contains(&file)));
    }
    let cyclic: Vec<_> = cyclic.iter().map(|file| &files[*file].path).collect();
    assert!(cyclic.is_empty(), "these files import each other: {cyclic:?}");
}

#[test]
fn roster_and_scim_are_pure_and_files_have_at_most_400_lines() {
    for File { path, module, code } in ["src", "tests", "examples", "benches"].into_iter().flat_map(files) {
        assert!(code.lines().count() <= 400, "{path}");
        let is_pure = module.starts_with("roster::") || module.starts_with("scim::");
        let impure = IMPURE.split(' ').find(|word| is_pure && code.contains(word));
        assert_eq!(impure, None, "{path}");
    }
}
