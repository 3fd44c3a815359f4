//! CHANGELOG.md has the version of Cargo.toml, and says what an operator must do.

#[test]
fn changelog_has_this_version_and_says_how_to_upgrade_to_each() {
    let changelog = include_str!("../../CHANGELOG.md");
    let versions: Vec<_> = changelog.split("\n## [").skip(1).collect();
    assert!(versions[0].starts_with("Unreleased]"), "{}", versions[0]);
    assert!(versions[1].starts_with(concat!(env!("CARGO_PKG_VERSION"), "] - 20")), "{}", versions[1]);
    for version in versions {
        let (heading, text) = version.split_once("\n\n").unwrap();
        assert!(text.starts_with("**To upgrade**: "), "{heading}");
    }
}
