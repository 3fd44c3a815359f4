//! The way to Harvest: proxies, certificate authorities, and who answers in Harvest's place.

use std::io::{Read, Write};
use std::net::TcpListener;
use std::sync::Arc;

use harvest_sim::Fault;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use rustls::pki_types::PrivateKeyDer;
use rustls::{ServerConfig, ServerConnection, StreamOwned};

use crate::program::Program;
use crate::scene::Scene;

/// What `sync` says, with this exit code and the advice that `check` gives too.
async fn said(program: &Program, code: i32) -> String {
    let checked = program.call(&["check"]).await.expect(code).stdout();
    let line = checked.lines().find(|line| line.starts_with("✗ account ")).unwrap();
    let synced = program.call(&["sync"]).await.expect(code).sentence();
    let advice = line.split_once("; ").unwrap().1;
    assert!(synced.contains(advice), "{synced}\n{line}");
    synced
}

#[tokio::test]
async fn base_url_without_v2_has_its_own_advice() {
    let scene = Scene::new().await;
    let mut program = scene.program();
    let base = scene.sim.base_url().trim_end_matches("/v2").to_owned();
    program.set("HARVEST_BASE_URL", &base);
    let checked = program.call(&["check"]).await;
    let warning = "! settings: harvest.base_url (from HARVEST_BASE_URL) does not end in /v2";
    assert!(checked.stdout().contains(warning), "{}", checked.stdout());
    for fault in [Fault::html(404), Fault::refusal(404), Fault::html(200), Fault::html(403)] {
        scene.sim.inject(fault.forever());
        let said = said(&program, 69).await;
        assert!(said.contains(&format!("set harvest.base_url to {base}/v2")), "{said}");
        assert!(!said.contains("captive portal"), "{said}");
        scene.sim.clear_faults();
    }
}

#[tokio::test]
async fn page_of_a_captive_portal_and_html_404_have_their_own_advice() {
    let scene = Scene::new().await;
    let program = scene.program();
    program.call(&["sync"]).await.expect(0);
    for (status, own, others) in
        [(200, "captive portal", "not Harvest's own"), (404, "not Harvest's own", "captive portal")]
    {
        scene.sim.inject(Fault::html(status).forever());
        let said = said(&program, 69).await;
        for words in [own, &status.to_string(), "text/html", "127.0.0.1"] {
            assert!(said.contains(words), "{status}, {words}: {said}");
        }
        assert!(!said.contains(others) && !said.contains("below /v2"), "{status}: {said}");
        scene.sim.clear_faults();
    }
}

#[tokio::test]
async fn proxy_of_the_environment_is_named_without_its_password_if_there_is_no_answer() {
    let scene = Scene::new().await;
    for (variable, value) in
        [("HTTPS_PROXY", "http://jo:canary@127.0.0.1:1"), ("all_proxy", "http://127.0.0.1:1")]
    {
        let mut program = scene.program();
        program
            .set("HARVEST_BASE_URL", "https://harvest.example.com/v2")
            .set(variable, value)
            .set("NO_PROXY", "example.org");
        let called = program.call(&["sync"]).await;
        let said = called.expect(69).sentence();
        for words in ["the proxy 127.0.0.1:1", "HTTPS_PROXY", "NO_PROXY", "harvest.base_url"] {
            assert!(said.contains(words), "{words}: {said}");
        }
        assert!(!called.stderr().contains("canary"), "{}", called.stderr());
        // This machine is reached without it.
        program.set("HARVEST_BASE_URL", scene.sim.base_url());
        program.call(&["sync"]).await.expect(0);
    }
}

/// An HTTPS server on this machine that refuses every token, with a certificate of an authority of its own. Returns its
/// origin and the authority's certificate.
fn https() -> (String, String) {
    let _ = rustls::crypto::ring::default_provider().install_default();
    let mut params = CertificateParams::new([]).unwrap();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let issuer = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
    let key = KeyPair::generate().unwrap();
    let params = CertificateParams::new(["127.0.0.1".to_owned()]).unwrap();
    let certificate = params.signed_by(&key, &issuer).unwrap();
    let key = PrivateKeyDer::try_from(key.serialize_der()).unwrap();
    let config = ServerConfig::builder().with_no_client_auth();
    let config = Arc::new(config.with_single_cert(vec![certificate.der().clone()], key).unwrap());
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let origin = format!("https://{}", listener.local_addr().unwrap());
    std::thread::spawn(move || {
        for stream in listener.incoming().map_while(Result::ok) {
            let mut stream = StreamOwned::new(ServerConnection::new(config.clone()).unwrap(), stream);
            // A client that does not trust us hangs up.
            if stream.read(&mut [0; 4096]).is_ok() {
                let head = "HTTP/1.1 401 Unauthorized\r\nContent-Type: application/json\r\nContent-Length: 2";
                let _ = stream.write_all(format!("{head}\r\nConnection: close\r\n\r\n{{}}").as_bytes());
                stream.conn.send_close_notify();
                let _ = stream.flush();
            }
        }
    });
    (origin, issuer.pem())
}

#[tokio::test]
async fn certificate_that_is_not_trusted_names_ssl_cert_file_which_makes_it_trusted() {
    let scene = Scene::new().await;
    let (origin, authority) = https();
    let file = tempfile::NamedTempFile::new().unwrap();
    let mut program = scene.program();
    program.set("HARVEST_BASE_URL", &format!("{origin}/v2"));
    let said = program.call(&["sync"]).await.expect(69).sentence();
    assert!(said.contains("does not trust the certificate") && said.contains("SSL_CERT_FILE"), "{said}");

    program.set("SSL_CERT_FILE", file.path().to_str().unwrap());
    let said = program.call(&["sync"]).await.expect(78).sentence();
    assert!(said.contains("cannot set up TLS") && said.contains("SSL_CERT_FILE"), "{said}");

    std::fs::write(file.path(), authority).unwrap();
    let said = program.call(&["sync"]).await.expect(77).sentence();
    assert!(said.contains("refused the token"), "{said}");
}
