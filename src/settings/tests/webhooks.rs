//! The sections `[webhooks.NAME]`.

use super::*;
use crate::settings::{layers, webhooks};

const SECRET: &str = "whsec_canaryCANARYcanaryCANARYcanaryCANARY";
const ACCOUNT: &str = "[[accounts]]\nid = 123456\naccess_token = \"x\"\n";

/// A file with an endpoint `bot` with these lines, and with a secret file for `SECRET` in them.
fn section(dir: &SettingsDir, lines: &str) -> PathBuf {
    let secret = dir.write("secret", SECRET).display().to_string();
    let lines = lines.replace("SECRET", &format!("secret_files = [\"{secret}\"]"));
    dir.write("roster.toml", &format!("{ACCOUNT}[webhooks.bot]\n{lines}"))
}

#[test]
fn endpoint_with_address_and_secret_has_the_defaults() {
    let dir = SettingsDir::new();
    let file = section(&dir, "url = \"https://hooks.example.com/canary\"\nSECRET");
    let settings = Settings::load(Some(&file), &variables(&[])).unwrap();
    let webhook = &settings.webhooks[0];
    assert_eq!((webhook.name.as_str(), webhook.in_flight, webhook.timeout.as_secs()), ("bot", 1, 15));
    assert_eq!((webhook.types.len(), webhook.ids_only), (10, false));
    assert!(!webhook.include_pay && !webhook.initial && !webhook.from_beginning && !webhook.sets_aside);
    assert_eq!(webhook.secrets[0].expose_secret().len(), 27);
    assert!(!format!("{settings:?}").contains("canary"), "{settings:?}");
}

#[test]
fn invalid_endpoints_are_refused_without_their_secrets() {
    const URL: &str = "url = \"https://hooks.example.com/canary\"\n";
    for (lines, fault) in [
        ("SECRET".to_owned(), "webhooks.bot.url (from"),
        (format!("{URL}url_file = \"/canary\"\nSECRET"), "must be given, or url_file, and not both"),
        ("url = \"http://hooks.example.com/canary\"\nSECRET".to_owned(), "give an https URL"),
        ("url = \"https://user:canary@example.com/\"\nSECRET".to_owned(), "without user, password and #"),
        ("url = \"https://169.254.169.254/canary\"\nSECRET".to_owned(), "link-local"),
        ("url = \"https://[fe80::1]/canary\"\nSECRET".to_owned(), "link-local"),
        ("url = \"https://0.0.0.0/canary\"\nSECRET".to_owned(), "unspecified"),
        ("url = \"canary\"\nSECRET".to_owned(), "give a URL such as"),
        (URL.to_owned(), "must name one file"),
        (format!("{URL}SECRET\ntypes = [\"users.*\"]"), "no event type matches"),
        (format!("{URL}SECRET\nin_flight = 17"), "from 1 to 16"),
        (format!("{URL}SECRET\ntimeout = \"61s\""), "give at most \"60s\""),
        (format!("{URL}SECRET\ncontent = \"ids\"\ninclude_pay = true"), "have no values"),
        (format!("{URL}SECRET\nrefused = \"drop\""), "give \"wait\" or \"set_aside\""),
        (format!("{URL}SECRET\nsecrets = \"canary\""), "webhooks.bot.secrets (from"),
        (format!("{URL}SECRET\naccounts = [\"canary\"]"), "positive whole numbers"),
    ] {
        let dir = SettingsDir::new();
        let error = Settings::load(Some(&section(&dir, &lines)), &variables(&[])).expect_err(&lines);
        let faults = error.faults().join("\n");
        assert!(faults.contains(fault), "{lines}: {faults}");
        assert!(!faults.to_lowercase().contains("canary"), "{lines}: {faults}");
    }
    let dir = SettingsDir::new();
    let file = section(&dir, &format!("{URL}SECRET\ninclude_pay = true"));
    let pay = Settings::load(Some(&file), &variables(&[("ROSTERD__RATES__MIRROR", "false")])).unwrap_err();
    assert!(pay.faults()[0].contains("it needs rates.mirror"), "{pay}");
}

#[test]
fn secrets_must_be_long_base64_and_belong_to_one_endpoint() {
    let dir = SettingsDir::new();
    for secret in [
        "canary",
        "whsec_Y2FuYXJ5",
        "canaryCANARYcanaryCANARYcanaryCANARY",
        "whsec_canary*ANARYcanaryCANARYcanaryCANARY",
    ] {
        let path = dir.write("short", secret).display().to_string();
        let file = section(&dir, &format!("url = \"https://example.com\"\nsecret_files = [\"{path}\"]"));
        let error = Settings::load(Some(&file), &variables(&[])).expect_err(secret);
        assert!(error.faults()[0].contains("has no signing secret"), "{error}");
        assert!(!error.to_string().to_lowercase().contains("canary"), "{error}");
    }
    let path = dir.write("shared", SECRET).display().to_string();
    let of = |name: &str| {
        format!("[webhooks.{name}]\nurl = \"https://example.com\"\nsecret_files = [\"{path}\"]\n")
    };
    let file = dir.write("two.toml", &(of("one") + &of("two")));
    let error = Settings::load(Some(&file), &variables(&[])).unwrap_err();
    assert!(error.faults()[0].contains("have the same secret"), "{error}");
}

#[test]
fn names_of_endpoints_are_short_and_plain() {
    for name in ["Bot", "-bot", "bot_1", "\"bot 1\"", &"b".repeat(41)] {
        let dir = SettingsDir::new();
        let file = dir.write("roster.toml", &format!("[webhooks.{name}]\nurl = \"https://example.com\""));
        let error = Settings::load(Some(&file), &variables(&[])).expect_err(name);
        assert!(error.faults()[0].contains("is not a name"), "{error}");
    }
}

#[test]
fn example_endpoint_of_the_reference_has_every_key_with_its_default() {
    let lines = layers::DEFAULTS.lines().skip_while(|line| !line.starts_with("# [webhooks."));
    let lines: Vec<_> = lines.take_while(|line| !line.is_empty()).map(|line| &line[2..]).collect();
    let example: toml::Table = toml::from_str(&lines.join("\n")).unwrap();
    let mut example = example["webhooks"]["hr-bot"].as_table().unwrap().clone();
    let mut defaults: toml::Table = toml::from_str(webhooks::DEFAULTS).unwrap();
    for required in ["url", "secret_files"] {
        assert!(example.remove(required).is_some() && defaults.remove(required).is_some());
    }
    assert_eq!(example, defaults);
    for pair in lines.windows(2).filter(|pair| pair[1].contains(" = ") && !pair[1].starts_with('#')) {
        assert!(pair[0].starts_with("# "), "{} has no comment above it", pair[1]);
    }
}
