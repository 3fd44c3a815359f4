//! Reads the crate as the compiler does, from `mod` to `mod`, and lists every path that is named in it.
//!
//! It reads tokens, not text: what a comment or a string says is no import, and what a macro is handed is one.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use proc_macro2::{Delimiter, TokenStream, TokenTree};

/// A path named in the source, such as `crate::clock::Clock` or `sqlx::PgPool`.
#[derive(Debug)]
pub struct Mention {
    /// Where: `src/sync/cycle.rs:12`.
    pub place: String,
    /// The module that it stands in, from the root of the crate.
    pub module: Vec<String>,
    /// What is named.
    pub path: Named,
}

/// Whose it is.
#[derive(Debug, PartialEq, Eq)]
pub enum Named {
    /// From the root of our crate, without `crate`.
    Ours(Vec<String>),
    /// Of another crate, of the standard library, or a type's own: told apart by its first name.
    Foreign(Vec<String>),
    /// A single word that is no path: a keyword, a variable.
    Word(String),
}

/// All that was read.
#[derive(Default)]
pub struct Source {
    /// Every path, in the order of reading.
    pub mentions: Vec<Mention>,
    /// Every file, from the root of the repository.
    pub files: BTreeSet<PathBuf>,
}

impl Source {
    /// Follows the modules from `file`, which stands at the root of a crate; its own paths count as said in `module`.
    pub fn read(&mut self, file: &Path, module: &[&str]) {
        let module: Vec<_> = module.iter().map(ToString::to_string).collect();
        self.file(file, &module, file.parent().unwrap());
    }

    fn file(&mut self, file: &Path, module: &[String], children: &Path) {
        let text = fs::read_to_string(repository().join(file))
            .unwrap_or_else(|error| panic!("cannot read {}: {error}", file.display()));
        self.files.insert(file.to_owned());
        self.text(&text, file, module, children);
    }

    /// What `file` says in `module`; the files of its modules are in `children`.
    pub fn text(&mut self, text: &str, file: &Path, module: &[String], children: &Path) {
        let tokens: TokenStream =
            text.parse().unwrap_or_else(|error| panic!("cannot read {}: {error}", file.display()));
        self.tokens(tokens, file, module, children);
    }

    fn tokens(&mut self, tokens: TokenStream, file: &Path, module: &[String], children: &Path) {
        let tokens: Vec<_> = tokens.into_iter().collect();
        let mut at = 0;
        // What `#[path = "…"]` says of the module that follows.
        let mut elsewhere = None;
        while let Some(token) = tokens.get(at) {
            match (token, &tokens[at + 1..]) {
                (TokenTree::Ident(word), [TokenTree::Ident(name), TokenTree::Punct(end), ..])
                    if word == "mod" && end.as_char() == ';' =>
                {
                    let name = name.to_string();
                    let (child, below) = match elsewhere.take() {
                        Some(path) => {
                            let child = file.parent().unwrap().join(path);
                            let below = child.parent().unwrap().to_owned();
                            (child, below)
                        }
                        None => find(children, &name),
                    };
                    self.file(&child, &below_module(module, &name), &below);
                    at += 3;
                }
                (TokenTree::Ident(word), [TokenTree::Ident(name), TokenTree::Group(body), ..])
                    if word == "mod" =>
                {
                    let name = name.to_string();
                    self.tokens(body.stream(), file, &below_module(module, &name), &children.join(&name));
                    at += 3;
                }
                (TokenTree::Ident(_), _) => {
                    let (paths, length) = paths(&tokens[at..]);
                    let place = format!("{}:{}", file.display(), token.span().start().line);
                    for path in paths {
                        let path =
                            resolve(path, module).unwrap_or_else(|| panic!("{place}: leaves the crate"));
                        self.mentions.push(Mention { place: place.clone(), module: module.to_owned(), path });
                    }
                    at += length;
                }
                (TokenTree::Group(group), _) => {
                    elsewhere = path_attribute(group).or(elsewhere);
                    self.tokens(group.stream(), file, module, children);
                    at += 1;
                }
                _ => at += 1,
            }
        }
    }
}

/// The root of the repository.
pub fn repository() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn below_module(module: &[String], name: &str) -> Vec<String> {
    module.iter().cloned().chain([name.to_owned()]).collect()
}

/// The file of a module, and where its own modules are.
fn find(dir: &Path, name: &str) -> (PathBuf, PathBuf) {
    let below = dir.join(name);
    let beside = dir.join(format!("{name}.rs"));
    if repository().join(&beside).is_file() { (beside, below) } else { (below.join("mod.rs"), below) }
}

/// `tests.rs` of `[path = "tests.rs"]`.
fn path_attribute(group: &proc_macro2::Group) -> Option<String> {
    let tokens: Vec<_> = group.stream().into_iter().collect();
    match tokens.as_slice() {
        [TokenTree::Ident(word), TokenTree::Punct(equals), TokenTree::Literal(path)]
            if group.delimiter() == Delimiter::Bracket && word == "path" && equals.as_char() == '=' =>
        {
            Some(path.to_string().trim_matches('"').to_owned())
        }
        _ => None,
    }
}

/// The paths that begin here, more than one where they part in braces, and the number of tokens they take.
fn paths(tokens: &[TokenTree]) -> (Vec<Vec<String>>, usize) {
    let mut stem = Vec::new();
    let mut at = 0;
    loop {
        match &tokens[at..] {
            [TokenTree::Ident(name), ..] => {
                stem.push(name.to_string());
                at += 1;
            }
            [TokenTree::Group(branches), ..] if branches.delimiter() == Delimiter::Brace => {
                let branches: Vec<_> = branches.stream().into_iter().collect();
                let comma = |token: &TokenTree| matches!(token, TokenTree::Punct(it) if it.as_char() == ',');
                let paths = branches
                    .split(comma)
                    .flat_map(|branch| paths(branch).0)
                    .map(|end| stem.iter().cloned().chain(end).collect())
                    .collect();
                return (paths, at + 1);
            }
            _ => return (vec![stem], at.max(1)),
        }
        match &tokens[at..] {
            [TokenTree::Punct(one), TokenTree::Punct(two), ..]
                if one.as_char() == ':' && two.as_char() == ':' =>
            {
                at += 2;
            }
            _ => return (vec![stem], at),
        }
    }
}

/// What a path means where it stands; `None` when it climbs out of the crate.
fn resolve(path: Vec<String>, module: &[String]) -> Option<Named> {
    let mut here = module.to_vec();
    let mut rest = path.as_slice();
    match path.first().map(String::as_str) {
        // From the binary the library has a name.
        Some("crate" | "rosterd") if path.len() > 1 => {
            here.clear();
            rest = &rest[1..];
        }
        Some("self") if path.len() > 1 => rest = &rest[1..],
        Some("super") => {}
        Some(word) if path.len() == 1 => return Some(Named::Word(word.to_owned())),
        _ => return Some(Named::Foreign(path)),
    }
    while let Some(("super", after)) = rest.split_first().map(|(first, after)| (first.as_str(), after)) {
        here.pop()?;
        rest = after;
    }
    here.extend(rest.iter().cloned());
    Some(Named::Ours(here))
}
