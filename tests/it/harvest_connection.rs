//! Connections to Harvest: proxies, certificate authorities, and servers that answer in Harvest's place.

use std::io::{Read, Write};
use std::net::TcpListener;
use std::sync::Arc;

use harvest_sim::Fault;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use rustls::pki_types::PrivateKeyDer;
use rustls::{ServerConfig, ServerConnection, StreamOwned};

use crate::program::Program;
use crate::scene::Scene;

/// The error of `sync`, which exits with this code. `check` must give the same advice.
async fn sync_error(program: &Program, code: i32) -> String {
    let checked = program.call(&["check"]).await.expect(code).stdout();
    let line = checked.lines().find(|line| line.starts_with("✗ account ")).unwrap();
    let synced = program.call(&["sync"]).await.expect(code).sentence();
    let advice = line.split_once("; ").unwrap().1;
    assert!(synced.contains(advice), "{synced}\n{line}");
    synced
}

#[tokio::test]
async fn base_url_without_v2_is_reported_with_the_correct_url() {
    let scene = Scene::new().await;
    let mut program = scene.program();
    let base = scene.sim.base_url().trim_end_matches("/v2").to_owned();
    program.set("HARVEST_BASE_URL", &base);
    let checked = program.call(&["check"]).await;
    let warning = "! settings: harvest.base_url (from HARVEST_BASE_URL) does not end in /v2";
    assert!(checked.stdout().contains(warning), "{}", checked.stdout());
    for fault in [Fault::html(404), Fault::refusal(404), Fault::html(200), Fault::html(403)] {
        scene.sim.inject(fault.forever());
        let error = sync_error(&program, 69).await;
        assert!(error.contains(&format!("set harvest.base_url to {base}/v2")), "{error}");
        assert!(!error.contains("captive portal"), "{error}");
        scene.sim.clear_faults();
    }
}

#[tokio::test]
async fn captive_portal_and_html_404_get_different_advice() {
    let scene = Scene::new().await;
    let program = scene.program();
    program.call(&["sync"]).await.expect(0);
    for (status, expected, other) in
        [(200, "captive portal", "not Harvest's own"), (404, "not Harvest's own", "captive portal")]
    {
        scene.sim.inject(Fault::html(status).forever());
        let error = sync_error(&program, 69).await;
        for words in [expected, &status.to_string(), "text/html", "127.0.0.1"] {
            assert!(error.contains(words), "{status}, {words}: {error}");
        }
        assert!(!error.contains(other) && !error.contains("below /v2"), "{status}: {error}");
        scene.sim.clear_faults();
    }
}

#[tokio::test]
async fn unreachable_proxy_is_reported_without_its_password() {
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
        let error = called.expect(69).sentence();
        for words in ["the proxy 127.0.0.1:1", "HTTPS_PROXY", "NO_PROXY", "harvest.base_url"] {
            assert!(error.contains(words), "{words}: {error}");
        }
        assert!(!called.stderr().contains("canary"), "{}", called.stderr());
        // rosterd reaches this machine without the proxy.
        program.set("HARVEST_BASE_URL", scene.sim.base_url());
        program.call(&["sync"]).await.expect(0);
    }
}

/// Starts an HTTPS server that refuses every token and whose certificate is from a new authority. Returns its origin
/// and the authority's certificate.
fn start_https_server() -> (String, String) {
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
            // A client that does not trust the certificate closes the connection.
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
async fn untrusted_certificate_is_reported_and_ssl_cert_file_makes_it_trusted() {
    let scene = Scene::new().await;
    let (origin, authority) = start_https_server();
    let file = tempfile::NamedTempFile::new().unwrap();
    let mut program = scene.program();
    program.set("HARVEST_BASE_URL", &format!("{origin}/v2"));
    let error = program.call(&["sync"]).await.expect(69).sentence();
    assert!(error.contains("does not trust the certificate") && error.contains("SSL_CERT_FILE"), "{error}");

    program.set("SSL_CERT_FILE", file.path().to_str().unwrap());
    let error = program.call(&["sync"]).await.expect(78).sentence();
    assert!(error.contains("cannot set up TLS") && error.contains("SSL_CERT_FILE"), "{error}");

    std::fs::write(file.path(), authority).unwrap();
    let error = program.call(&["sync"]).await.expect(77).sentence();
    assert!(error.contains("refused the token"), "{error}");
}
