//! Signatures of Standard Webhooks: HMAC-SHA256 over `ID.TIMESTAMP.BODY`.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use ring::hmac;

/// A key that signs messages. Its `Debug` does not show it.
#[derive(Clone, Debug)]
pub(crate) struct SigningKey(hmac::Key);

impl SigningKey {
    pub fn new(secret: &[u8]) -> Self {
        Self(hmac::Key::new(hmac::HMAC_SHA256, secret))
    }
}

/// The value of `webhook-signature`: one signature for each key, so that a receiver can replace its secret.
pub(super) fn signature(keys: &[SigningKey], id: &str, timestamp: i64, body: &str) -> String {
    let sign = |SigningKey(key): &SigningKey| {
        let mut context = hmac::Context::with_key(key);
        context.update(format!("{id}.{timestamp}.").as_bytes());
        context.update(body.as_bytes());
        format!("v1,{}", STANDARD.encode(context.sign()))
    };
    keys.iter().map(sign).collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The example of the specification of Standard Webhooks.
    #[test]
    fn signature_equals_the_example_of_the_specification() {
        let key = SigningKey::new(&STANDARD.decode("MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw").unwrap());
        let (id, body) = ("msg_p5jXN8AQM9LWM0D4loKWxJek", r#"{"test": 2432232314}"#);
        let signed = signature(std::slice::from_ref(&key), id, 1_614_265_330, body);
        assert_eq!(signed, "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=");
        let two = signature(&[key, SigningKey::new(b"another")], id, 1_614_265_330, body);
        assert!(two.starts_with(&format!("{signed} v1,")), "{two}");
    }
}
