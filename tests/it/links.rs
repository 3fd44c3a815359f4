//! Every relative link of the documentation leads to a file, and to a heading of it; every page is in the table of contents.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::reference::anchor;

pub const ROOT: &str = env!("CARGO_MANIFEST_DIR");

/// The pages that git tracks or would, without generated directories.
pub fn pages() -> Vec<PathBuf> {
    let git = ["ls-files", "--cached", "--others", "--exclude-standard", "*.md"];
    let listed = Command::new("git").args(git).current_dir(ROOT).output().unwrap();
    assert!(listed.status.success());
    let listed = String::from_utf8(listed.stdout).unwrap();
    listed.lines().map(PathBuf::from).filter(|page| Path::new(ROOT).join(page).exists()).collect()
}

/// The lines outside code blocks.
fn prose(text: &str) -> Vec<String> {
    let mut is_code = false;
    let mut lines = Vec::new();
    for line in text.lines() {
        if line.trim_start().starts_with("```") {
            is_code = !is_code;
        } else if !is_code {
            lines.push(line.to_owned());
        }
    }
    lines
}

fn anchors(text: &str) -> BTreeSet<String> {
    let headings: Vec<_> = prose(text).iter().filter(|line| line.starts_with('#')).cloned().collect();
    headings.iter().map(|heading| anchor(heading.trim_start_matches('#'))).collect()
}

/// The targets of the links. A line break may split a link's text, but not its target.
fn targets(text: &str) -> Vec<String> {
    let text = prose(text).join("\n");
    let inline = text.split("](").skip(1).filter_map(|rest| rest.split_once(')')).map(|(target, _)| target);
    inline.map(str::to_owned).collect()
}

#[test]
fn relative_links_of_all_pages_lead_to_files_and_headings() {
    let (mut wrong, mut count) = (Vec::new(), 0);
    for page in pages() {
        let text = fs::read_to_string(Path::new(ROOT).join(&page)).unwrap();
        for target in targets(&text).iter().filter(|target| !target.contains("://")) {
            count += 1;
            let (file, heading) = target.split_once('#').unwrap_or((target, ""));
            let path = match file {
                "" => page.clone(),
                _ => page.parent().unwrap().join(file),
            };
            let path = Path::new(ROOT).join(path);
            let has_heading = || anchors(&fs::read_to_string(&path).unwrap()).contains(heading);
            if !path.exists() || !heading.is_empty() && !has_heading() {
                wrong.push(format!("{}: {target}", page.display()));
            }
        }
    }
    assert!(count > 200, "{count}");
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn contents_name_every_page_of_docs_and_deploy() {
    let contents = fs::read_to_string(format!("{ROOT}/docs/README.md")).unwrap();
    let known: BTreeSet<_> = targets(&contents).into_iter().collect();
    let docs: Vec<_> = pages().into_iter().filter(|page| page.parent() == Some(Path::new("docs"))).collect();
    assert!(docs.len() > 15, "{docs:?}");
    for page in docs.iter().map(|page| page.file_name().unwrap().to_str().unwrap()) {
        assert!(page == "README.md" || known.contains(page), "docs/README.md does not name {page}");
    }
    for page in [
        "../README.md",
        "../deploy/RUNBOOK.md",
        "../CHANGELOG.md",
        "../ARCHITECTURE.md",
        "../CONTRIBUTING.md",
    ] {
        assert!(known.contains(page), "docs/README.md does not name {page}");
    }
}
