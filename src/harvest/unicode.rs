//! Bytes that are no UTF-8, kept apart so that only the record that holds them is refused.

use std::borrow::Cow;
use std::fmt::Write;

/// The body with each byte that is no UTF-8 written as the JSON escape of a lone surrogate (`\udc80` to `\udcff`, the
/// way Python names such bytes): inside a text it spoils that text's record and nothing else, anywhere else it is no
/// JSON.
pub fn escaped(body: &[u8]) -> Cow<'_, [u8]> {
    if std::str::from_utf8(body).is_ok() {
        return Cow::Borrowed(body);
    }
    let mut text = String::with_capacity(body.len() + 64);
    for chunk in body.utf8_chunks() {
        text.push_str(chunk.valid());
        for byte in chunk.invalid() {
            // Writing into a String cannot fail.
            let _ = write!(text, "\\udc{byte:02x}");
        }
    }
    Cow::Owned(text.into_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_utf8_stays_as_it_is() {
        assert!(matches!(escaped("{\"a\":\"ä\"}".as_bytes()), Cow::Borrowed(_)));
    }

    #[test]
    fn a_stray_byte_becomes_a_lone_surrogate() {
        assert_eq!(escaped(b"\"caf\xe9\"").as_ref(), br#""caf\udce9""#);
        assert_eq!(escaped(b"\"\xc3").as_ref(), br#""\udcc3"#);
    }
}
