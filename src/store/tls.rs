//! Problems of TLS connections: the files that the settings name, and the server's certificate.

use std::borrow::Cow;
use std::path::PathBuf;
use std::{env, fs};

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{CertificateError, RootCertStore};
use sqlx::postgres::PgSslMode;
use url::Url;

/// Why a TLS connection fails, and what to do.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct TlsProblem(String);

/// The files that sqlx reads for a TLS connection. sqlx reads only those that the sslmode needs.
#[derive(Clone, Debug)]
pub(super) struct TlsFiles {
    root: Option<PemSource>,
    certificate: Option<PemSource>,
    key: Option<PemSource>,
}

/// A file that the URL or an environment variable names, or a text in PEM form in the variable.
#[derive(Clone)]
struct PemSource {
    setting: &'static str,
    value: String,
}

impl std::fmt::Debug for PemSource {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.name())
    }
}

impl PemSource {
    fn find(url: Option<&Url>, names: [&'static str; 3], variable: &'static str) -> Option<Self> {
        let given = url.and_then(|url| url.query_pairs().filter(|(key, _)| names.contains(&&**key)).last());
        match given {
            Some((_, value)) => Some(Self { setting: names[0], value: value.into_owned() }),
            None => env::var(variable).ok().map(|value| Self { setting: variable, value }),
        }
    }

    /// The file; `None` if the value is itself a text in PEM form, by the same test as sqlx's.
    fn file(&self) -> Option<PathBuf> {
        let text = self.value.trim();
        let is_inline = text.starts_with("-----BEGIN") && text.ends_with("-----");
        (!is_inline).then(|| PathBuf::from(&self.value))
    }

    fn name(&self) -> String {
        match self.file() {
            Some(file) => format!("file {:?} ({})", file.display().to_string(), self.setting),
            None => format!("text of {}", self.setting),
        }
    }

    /// Why the content cannot be used: it cannot be read, or `is_valid` rejects it.
    fn problem(&self, kind: &str, is_valid: impl Fn(&[u8]) -> bool) -> Option<TlsProblem> {
        let content = match self.file() {
            None => Cow::Borrowed(self.value.as_bytes()),
            Some(file) => match fs::read(file) {
                Ok(content) => content.into(),
                Err(error) => {
                    let name = self.name();
                    return Some(TlsProblem(format!(
                        "cannot read the {kind} {name}: {error}; correct the path, or let rosterd's user read the file"
                    )));
                }
            },
        };
        (!is_valid(&content)).then(|| {
            TlsProblem(format!(
                "the {kind} {} is not in PEM form, or not valid; name a valid file",
                self.name()
            ))
        })
    }
}

impl TlsFiles {
    pub(super) fn new(url: Option<&Url>, mode: PgSslMode) -> Self {
        let verifies = matches!(mode, PgSslMode::VerifyCa | PgSslMode::VerifyFull);
        let is_tls = verifies || matches!(mode, PgSslMode::Require);
        let find =
            |is_read: bool, names, variable| is_read.then(|| PemSource::find(url, names, variable)).flatten();
        Self {
            root: find(verifies, ["sslrootcert", "ssl-root-cert", "ssl-ca"], "PGSSLROOTCERT"),
            certificate: find(is_tls, ["sslcert", "ssl-cert", "sslcert"], "PGSSLCERT"),
            key: find(is_tls, ["sslkey", "ssl-key", "sslkey"], "PGSSLKEY"),
        }
    }

    pub(super) fn problem(&self) -> Option<TlsProblem> {
        let is_root = |content: &[u8]| {
            let mut store = RootCertStore::empty();
            let mut certificates = CertificateDer::pem_slice_iter(content);
            certificates.all(|found| found.is_ok_and(|found| store.add(found).is_ok())) && !store.is_empty()
        };
        let is_certificate = |content: &[u8]| CertificateDer::from_pem_slice(content).is_ok();
        let is_key = |content: &[u8]| PrivateKeyDer::from_pem_slice(content).is_ok();
        let root = || self.root.as_ref()?.problem("CA certificate", is_root);
        let certificate = || self.certificate.as_ref()?.problem("client certificate", is_certificate);
        let key = || self.key.as_ref()?.problem("client key", is_key);
        let pair = || {
            let text = "only one of sslcert and sslkey is set; set both in database.url, or neither";
            (self.certificate.is_some() != self.key.is_some()).then(|| TlsProblem(text.to_owned()))
        };
        root().or_else(pair).or_else(certificate).or_else(key)
    }
}

impl TlsProblem {
    /// The problem of the server's certificate or of the handshake; `None` if the error is of another kind.
    pub(super) fn of(error: &sqlx::Error, host: &str) -> Option<Self> {
        let error = handshake_error(error)?;
        let rustls::Error::InvalidCertificate(refused) = error else {
            return Some(Self(format!("the TLS handshake failed: {error}; check the server's TLS settings")));
        };
        Some(Self(certificate_problem(refused, host)))
    }
}

/// Why the server's certificate is refused, and what to do.
fn certificate_problem(refused: &CertificateError, host: &str) -> String {
    let kind = if host.parse::<std::net::IpAddr>().is_ok() { "IP" } else { "DNS" };
    let name = format!("subjectAltName={kind}:{host}");
    match refused {
        CertificateError::UnknownIssuer => {
            "the server's certificate is not signed by a trusted authority; set sslrootcert in database.url to the file of \
             the CA certificate that signed it (if it is self-signed: to the file of that certificate)"
                .to_owned()
        }
        CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. } => {
            let names = match refused {
                CertificateError::NotValidForNameContext { presented, .. } if !presented.is_empty() => {
                    format!("is for {}, not for {host}", presented.join(", "))
                }
                _ => format!("has no subjectAltName for {host} (its common name does not count)"),
            };
            format!(
                "the server's certificate {names}; set the host in database.url to a name in the certificate, give the \
                 server a certificate with {name}, or, without checking the name, set sslmode=verify-ca"
            )
        }
        CertificateError::Expired | CertificateError::ExpiredContext { .. } => {
            "the server's certificate has expired; renew it".to_owned()
        }
        CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => {
            "the server's certificate is not valid yet; check the clocks of the server and of this machine".to_owned()
        }
        CertificateError::Other(other) if other.0.to_string() == "CaUsedAsEndEntity" => format!(
            "the server's certificate is a CA certificate, as `openssl req -x509` makes by default; make it again with \
             -addext basicConstraints=critical,CA:FALSE -addext {name}, and set sslrootcert in database.url to a copy of \
             it, or sign a certificate for the server with your own CA"
        ),
        CertificateError::Other(other) if other.0.to_string().starts_with("UnsupportedCertVersion") => format!(
            "the server's certificate has X.509 version 1; make it again with extensions, which gives it version 3 \
             (`openssl x509 -req … -extfile FILE`, with {name} in FILE)"
        ),
        CertificateError::Other(other) => format!("the server's certificate is not valid: {}", other.0),
        other => format!("the server's certificate is not valid: {other}"),
    }
}

/// The error of a TLS handshake, which sqlx wraps in an error of the connection.
pub(super) fn handshake_error(error: &sqlx::Error) -> Option<&rustls::Error> {
    match error {
        sqlx::Error::Io(error) => error.get_ref()?.downcast_ref(),
        sqlx::Error::Tls(error) => error.downcast_ref(),
        _ => None,
    }
}
