//! An authority of our own, which issues certificates to servers and clients of tests.

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DistinguishedName, DnType,
    ExtendedKeyUsagePurpose, IsCa, KeyPair, KeyUsagePurpose, date_time_ymd,
};
use rustls::ServerConfig;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio::io::copy_bidirectional;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;

/// Whose certificates are believed.
pub(crate) struct Authority(CertifiedIssuer<'static, KeyPair>);

/// Whether a certificate is in its time.
#[derive(Clone, Copy, PartialEq)]
pub(crate) enum Age {
    Valid,
    Expired,
}

impl Authority {
    pub(crate) fn new(name: &str) -> Self {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        params.distinguished_name = named(name);
        let key = KeyPair::generate().expect("a key");
        Self(CertifiedIssuer::self_signed(params, key).expect("a certificate"))
    }

    /// Its own certificate, by which it is believed.
    pub(crate) fn pem(&self) -> String {
        self.0.pem()
    }

    /// Writes a certificate for `name` to `FILE.pem`, and its key to `FILE.key`.
    pub(crate) fn issue(&self, file: &Path, name: &str, age: Age) {
        let mut params = CertificateParams::new([name.to_owned()]).expect("a name");
        params.distinguished_name = named(name);
        params.extended_key_usages = vec![
            ExtendedKeyUsagePurpose::ServerAuth,
            ExtendedKeyUsagePurpose::ClientAuth,
        ];
        if age == Age::Expired {
            params.not_before = date_time_ymd(2020, 1, 1);
            params.not_after = date_time_ymd(2021, 1, 1);
        }
        let key = KeyPair::generate().expect("a key");
        let certificate = params.signed_by(&key, &self.0).expect("a certificate");
        write(&file.with_extension("pem"), &certificate.pem());
        write(&file.with_extension("key"), &key.serialize_pem());
    }
}

/// Takes the TLS off for somebody who speaks none. Shows the certificate that stands in the files
/// (`FILE.pem`, `FILE.key`) now, for each connection anew.
pub(crate) async fn terminate(
    listener: TcpListener,
    files: PathBuf,
    behind: SocketAddr,
    protocol: &str,
) {
    let mut connections = JoinSet::new();
    loop {
        let (stream, _) = listener.accept().await.expect("it is bound");
        let certificate = CertificateDer::from_pem_file(files.with_extension("pem"));
        let key = PrivateKeyDer::from_pem_file(files.with_extension("key"));
        let mut config = ServerConfig::builder()
            .with_no_client_auth()
            .with_single_cert(
                vec![certificate.expect("a certificate")],
                key.expect("a key"),
            )
            .expect("they belong together");
        config.alpn_protocols = vec![protocol.as_bytes().to_vec()];
        connections.spawn(async move {
            // A client that doesn't believe us breaks off.
            let accepting = TlsAcceptor::from(Arc::new(config)).accept(stream);
            let mut stream = accepting.await.ok()?;
            let mut behind = TcpStream::connect(behind).await.ok()?;
            copy_bidirectional(&mut stream, &mut behind).await.ok()
        });
    }
}

fn named(name: &str) -> DistinguishedName {
    let mut names = DistinguishedName::new();
    names.push(DnType::CommonName, name);
    names
}

/// Writes a file of the test's own folder.
pub(crate) fn write(file: &Path, text: &str) {
    fs::write(file, text).expect("our own folder");
}
