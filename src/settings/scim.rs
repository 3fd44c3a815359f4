//! The section `scim`.

use super::model::{Scim, Settings};
use super::parse::{base_url, listen};
use super::reader::Reader;
use super::secrets;
use crate::outbound::is_loopback;
use crate::roster::write_policy::OnDelete;

const LISTEN: &str = "scim.listen";
const PUBLIC_URL: &str = "scim.public_url";
const TOKENS_FILE: &str = "scim.tokens_file";

pub(super) fn scim(reader: &mut Reader) -> Scim {
    let home = reader.home;
    let tokens_file = |text: &str| {
        secrets::expanded(text, home).ok_or_else(|| "HOME is not set, so give a path without ~".to_owned())
    };
    let choices =
        [("deactivate", OnDelete::Deactivate), ("delete", OnDelete::Delete), ("refuse", OnDelete::Refuse)];
    let scim = Scim {
        listen: reader.optional(LISTEN, listen),
        public_url: reader.optional(PUBLIC_URL, |text| base_url(text, "https://scim.example.com")),
        tokens_file: reader.optional(TOKENS_FILE, tokens_file),
        on_delete: reader.choice("scim.delete", choices),
        with_roles: reader.choice("scim.groups", [("", false), ("roles", true)]),
    };
    require_tls(reader, &scim);
    scim
}

/// rosterd serves plain HTTP, so that only this machine, where a proxy adds TLS, may reach it.
fn require_tls(reader: &mut Reader, scim: &Scim) {
    if reader.boolean("scim.allow_plain_http") || !reader.all_valid(&["scim.allow_plain_http"]) {
        return;
    }
    if scim.listen.is_some_and(|address| !address.ip().is_loopback()) {
        reader.refuse_value(
            LISTEN,
            "other machines reach this address without TLS; listen on 127.0.0.1 behind a proxy with TLS, or set \
             scim.allow_plain_http",
        );
    }
    if scim.public_url.as_ref().is_some_and(|url| url.scheme() == "http" && !is_loopback(url)) {
        reader.refuse_value(
            PUBLIC_URL,
            "directories would send their tokens without TLS; give an https URL, or set scim.allow_plain_http",
        );
    }
}

pub(super) fn check_combinations(reader: &mut Reader, settings: &Settings) {
    let scim = &settings.scim;
    let Some(listen) = scim.listen else { return };
    for (key, is_absent) in
        [(PUBLIC_URL, scim.public_url.is_none()), (TOKENS_FILE, scim.tokens_file.is_none())]
    {
        if is_absent && reader.all_valid(&[key]) {
            let name = reader.name(LISTEN);
            reader.refuse_value(key, format_args!("{name} needs it; set both"));
        }
    }
    if settings.http.listen == Some(listen) && reader.all_valid(&[LISTEN, "http.listen"]) {
        let source = reader.source("http.listen");
        reader.refuse_value(
            LISTEN,
            format_args!("give another address than http.listen (from {source}), which needs no token"),
        );
    }
}
