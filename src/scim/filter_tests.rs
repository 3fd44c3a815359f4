use super::*;

fn conditions(filter: &str) -> Vec<(String, Option<String>)> {
    let conditions = parse(filter).unwrap_or_else(|error| panic!("{filter}: {error}"));
    conditions.into_iter().map(|it| (it.attribute, it.value)).collect()
}

#[track_caller]
fn expect(filter: &str, expected: &[(&str, Option<&str>)]) {
    let expected: Vec<_> =
        expected.iter().map(|(name, value)| ((*name).to_owned(), value.map(ToOwned::to_owned))).collect();
    assert_eq!(conditions(filter), expected, "{filter}");
}

#[test]
fn values_are_texts_words_or_null() {
    expect(r#"userName eq "ada@x.test""#, &[("userName", Some("ada@x.test"))]);
    expect("externalId EQ jyoung", &[("externalId", Some("jyoung"))]);
    expect("active eq True", &[("active", Some("True"))]);
    expect("id eq 7", &[("id", Some("7"))]);
    expect("externalId eq null", &[("externalId", None)]);
    expect(r#"externalId eq "null""#, &[("externalId", Some("null"))]);
    expect(r#"userName eq"a \"b\" \u00e4 ) and \\""#, &[("userName", Some("a \"b\" ä ) and \\"))]);
}

#[test]
fn conditions_are_joined_by_and_in_parentheses_and_brackets() {
    expect("((a eq 1) AND (b eq 2 and (c eq 3)))", &[("a", Some("1")), ("b", Some("2")), ("c", Some("3"))]);
    let work = ("emails.type", Some("work"));
    expect(r#"emails[type eq "work"].value eq "a@x""#, &[work, ("emails.value", Some("a@x"))]);
    expect(r#"emails[type eq "work" and value eq "a@x"]"#, &[work, ("emails.value", Some("a@x"))]);
}

#[test]
fn other_operators_are_refused_and_named() {
    for (filter, name) in [
        ("a eq 1 or b eq 2", "or"),
        ("not (a eq 1)", "not"),
        ("emails[type eq \"work\" or value eq 1]", "or"),
        ("userName co \"a\"", "co"),
        ("userName SW \"a\"", "sw"),
        ("title pr", "pr"),
        ("meta.lastModified gt \"2026-01-01\"", "gt"),
    ] {
        let error = parse(filter).expect_err(filter);
        assert_eq!((error.status, error.scim_type), (400, Some("invalidFilter")));
        assert!(error.detail.contains(&format!("operator {name} is not supported")), "{error}");
    }
}

#[test]
fn malformed_filters_are_refused_without_quoting_them() {
    for filter in [
        "",
        " ",
        "secret",
        "secret eq",
        "secret eq eq eq",
        "secret secret",
        "(secret eq 1",
        "secret eq 1)",
        "secret eq 1 secret eq 2",
        "secret eq 1 and",
        "and secret eq 1",
        "secret eq \"unclosed",
        "secret eq \"\\x\"",
        "secret eq \"\\ud800\"",
        "\"secret\" eq 1",
        "emails[secret eq 1",
        "emails[] eq 1",
        "emails[secret[a eq 1]]",
        "emails[(secret eq 1)]",
        "secret eq (1)",
        "emails[a eq 1] secret",
    ] {
        let error = parse(filter).expect_err(filter);
        assert_eq!(error.scim_type, Some("invalidFilter"), "{filter}");
        assert!(!error.detail.contains("secret"), "{error}");
    }
}

#[test]
fn length_and_depth_are_bounded() {
    let nested = |depth: usize| format!("{}a eq 1{}", "(".repeat(depth), ")".repeat(depth));
    assert!(parse(&nested(16)).is_ok());
    assert!(parse(&nested(17)).is_err());
    assert!(parse(&nested(900)).is_err());
    assert!(parse(&nested(1_000_000)).is_err());
    assert!(parse(&format!("a eq \"{}\"", "ä".repeat(1_993))).is_ok());
    assert!(parse(&format!("a eq \"{}\"", "ä".repeat(1_994))).is_err());
}

#[test]
fn filters_of_paths_select_the_value_that_rosterd_has() {
    let selects = |selector: &str| selects_work(selector).expect(selector);
    assert!(selects("type eq \"work\"") && selects("TYPE eq Work and primary eq true"));
    for other in ["type eq \"home\"", "primary eq false", "type eq null", "value eq \"a@x\""] {
        assert!(!selects(other), "{other}");
    }
    assert!(selects_work("type eq \"work\" or type eq \"home\"").is_err());
    assert_eq!(closing_bracket(r#"a eq "]\"]" ].value"#), Some(12));
    assert_eq!(closing_bracket("a eq 1"), None);
}
