//! Receivers with TLS: the certificate must be valid, and nothing is sent to another server.

use std::sync::Arc;

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair, date_time_ymd};
use rustls::ServerConfig;
use rustls::pki_types::PrivateKeyDer;
use tokio_rustls::TlsAcceptor;

use super::{Hooks, write};
use crate::receiver::{Answer, OK, Receiver};

type Issuer = CertifiedIssuer<'static, KeyPair>;

fn authority() -> Issuer {
    let mut params = CertificateParams::new([]).unwrap();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap()
}

/// A receiver with a certificate of the authority for this host, after a change of its other properties.
async fn receiver(
    name: &str,
    issuer: &Issuer,
    host: &str,
    change: impl FnOnce(&mut CertificateParams),
) -> Receiver {
    let _ = rustls::crypto::ring::default_provider().install_default();
    let (key, mut params) =
        (KeyPair::generate().unwrap(), CertificateParams::new([host.to_owned()]).unwrap());
    change(&mut params);
    let certificate = params.signed_by(&key, issuer).unwrap();
    let key = PrivateKeyDer::try_from(key.serialize_der()).unwrap();
    let config = ServerConfig::builder().with_no_client_auth();
    let config = config.with_single_cert(vec![certificate.der().clone()], key).unwrap();
    Receiver::start_with(name, Some(TlsAcceptor::from(Arc::new(config)))).await
}

#[tokio::test]
async fn events_are_sent_only_to_receivers_with_a_valid_certificate() {
    let (mut hooks, trusted, other) = (Hooks::new().await, authority(), authority());
    let valid = receiver("valid", &trusted, "127.0.0.1", |_| {}).await;
    let unknown = receiver("unknown", &other, "127.0.0.1", |_| {}).await;
    let misnamed = receiver("misnamed", &trusted, "hooks.example.com", |_| {}).await;
    let expired =
        receiver("expired", &trusted, "127.0.0.1", |params| params.not_after = date_time_ymd(2024, 1, 1))
            .await;
    hooks.endpoint("valid", &valid.url(), "");
    let refused = [("unknown", &unknown), ("misnamed", &misnamed), ("expired", &expired)];
    for (name, receiver) in refused {
        hooks.endpoint(name, &receiver.url(), "");
    }
    let mut program = hooks.program();
    program.set("SSL_CERT_FILE", &write(hooks.dir.path(), "authorities.pem", &trusted.pem()));
    let mut daemon = program.start();
    daemon.until("cycle.finished").await;
    let first = hooks.head().await;
    hooks.edit(2);
    valid.until_accepted(2).await;
    assert_eq!(valid.accepted(), hooks.seqs_after(first).await);
    hooks.scene.until("SELECT count(*) = 3 FROM roster.webhooks WHERE failure = 'tls'").await;
    program.call(&["webhooks", "test", "valid"]).await.expect(0);
    for (name, receiver) in refused {
        let called = program.call(&["webhooks", "test", name]).await;
        let sentence = called.expect(69).sentence();
        assert!(sentence.contains("certificate") && sentence.contains("SSL_CERT_FILE"), "{sentence}");
        assert!(!(called.stdout() + &sentence).contains("hidden-path-canary"), "{sentence}");
        assert!(receiver.requests().is_empty(), "{name}");
    }
    assert!(!daemon.log().contains("hidden-path-canary"));
}

#[tokio::test]
async fn redirect_of_a_tls_receiver_to_plain_http_is_not_followed() {
    let (mut hooks, trusted, plain) = (Hooks::new().await, authority(), Receiver::start("bot").await);
    let bot = receiver("bot", &trusted, "127.0.0.1", |_| {}).await;
    hooks.endpoint("bot", &bot.url(), "");
    let mut program = hooks.program();
    program.set("SSL_CERT_FILE", &write(hooks.dir.path(), "authorities.pem", &trusted.pem()));
    let mut daemon = program.start();
    daemon.until("cycle.finished").await;
    let location = format!("location: {}\r\n", plain.url()).leak();
    bot.answer(Answer::Status(307, location));
    hooks.edit(1);
    assert_eq!(daemon.until("webhook.failing").await["failure"], "redirect 307");
    assert!(plain.requests().is_empty());
    bot.answer(OK);
    program.call(&["webhooks", "retry", "bot"]).await.expect(0);
    bot.until_accepted(1).await;
    assert!(plain.requests().is_empty());
}
