//! An authority of our own, which issues certificates to servers and clients of tests.

use std::fs;
use std::path::Path;

use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DistinguishedName, DnType,
    ExtendedKeyUsagePurpose, IsCa, KeyPair, KeyUsagePurpose, date_time_ymd,
};

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

fn named(name: &str) -> DistinguishedName {
    let mut names = DistinguishedName::new();
    names.push(DnType::CommonName, name);
    names
}

/// Writes a file of the test's own folder.
pub(crate) fn write(file: &Path, text: &str) {
    fs::write(file, text).expect("our own folder");
}
