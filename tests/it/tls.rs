//! TLS connections to PostgreSQL: encrypted and to the right server, or refused.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::path::PathBuf;

use harvest_sim::Sim;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use sqlx::{Connection, PgConnection};

use crate::cluster::Cluster;
use crate::program::{Called, Program};
use crate::scene::small_company;

/// A certificate authority, with its certificate in a file.
struct Authority {
    issuer: CertifiedIssuer<'static, KeyPair>,
    file: PathBuf,
}

impl Authority {
    fn new(home: &tempfile::TempDir, name: &str) -> Self {
        let mut params = CertificateParams::new([]).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name.push(rcgen::DnType::CommonName, name);
        let issuer = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
        let file = home.path().join(format!("{name}.pem"));
        fs::write(&file, issuer.pem()).unwrap();
        Self { issuer, file }
    }

    /// Gives the server a certificate for this host, which the server uses for new connections.
    async fn certify(&self, cluster: &Cluster, host: &str) {
        let key = KeyPair::generate().unwrap();
        let certificate =
            CertificateParams::new([host.to_owned()]).unwrap().signed_by(&key, &self.issuer).unwrap();
        install(cluster, &certificate.pem(), &key.serialize_pem()).await;
    }
}

/// Makes the server use this certificate for new connections.
pub async fn install(cluster: &Cluster, certificate: &str, key: &str) {
    let owner = fs::metadata(cluster.data()).unwrap();
    for (name, text) in [("server.crt", certificate), ("server.key", key)] {
        let path = cluster.data().join(name);
        fs::write(&path, text).unwrap();
        // PostgreSQL refuses a key that other users can read.
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
        chown(&path, Some(owner.uid()), Some(owner.gid())).unwrap();
    }
    cluster.execute("ALTER SYSTEM SET ssl = on").await;
    cluster.reload().await;
}

/// A program whose database URL has these parameters.
fn program(sim: &Sim, cluster: &Cluster, parameters: &str) -> Program {
    Program::new(sim, &format!("{}?{parameters}", cluster.url()))
}

#[track_caller]
fn expect_refused(called: &Called, cluster: &Cluster, cause: &str) {
    let sentence = called.expect(78).sentence();
    assert!(sentence.contains(cause), "the error should contain {cause}: {sentence}");
    let password = url::Url::parse(cluster.url()).unwrap().password().unwrap().to_owned();
    assert!(!called.stderr().contains(&password) && !called.stdout().contains(&password));
}

#[tokio::test]
async fn verify_full_accepts_the_right_server_and_no_other() {
    let sim = small_company().await;
    let (cluster, home) = (Cluster::new().await, tempfile::tempdir().unwrap());
    let without_tls = program(&sim, &cluster, "sslmode=require").call(&["sync"]).await;
    expect_refused(&without_tls, &cluster, "has no TLS");

    let (authority, other) = (Authority::new(&home, "authority"), Authority::new(&home, "other"));
    authority.certify(&cluster, "127.0.0.1").await;
    let full = format!("sslmode=verify-full&sslrootcert={}", authority.file.display());
    let program_full = program(&sim, &cluster, &full);
    program_full.call(&["check"]).await.expect(0);
    let mut daemon = program_full.start();
    daemon.until("cycle.finished").await;
    let mut connection = PgConnection::connect(cluster.url()).await.unwrap();
    let unencrypted: i64 = sqlx::query_scalar(
        "SELECT count(*) FROM pg_stat_ssl JOIN pg_stat_activity USING (pid)
          WHERE application_name = 'rosterd' AND NOT ssl",
    )
    .fetch_one(&mut connection)
    .await
    .unwrap();
    assert_eq!(unencrypted, 0, "connections without TLS");
    daemon.signal("-TERM");
    assert_eq!(daemon.ended().await, Some(0));

    let wrong = format!("sslmode=verify-full&sslrootcert={}", other.file.display());
    let with_other_authority = program(&sim, &cluster, &wrong).call(&["sync"]).await;
    expect_refused(&with_other_authority, &cluster, "sslrootcert");

    authority.certify(&cluster, "db.example.com").await;
    let misnamed = program_full.call(&["sync"]).await;
    expect_refused(&misnamed, &cluster, "db.example.com");
    let checked = program_full.call(&["check"]).await;
    assert!(
        checked.expect(78).stdout().contains("✗ database: PostgreSQL at 127.0.0.1:"),
        "{}",
        checked.stdout()
    );
    // `verify-ca` does not check the host name.
    let parameters = format!("sslmode=verify-ca&sslrootcert={}", authority.file.display());
    program(&sim, &cluster, &parameters).call(&["sync"]).await.expect(0);
}
