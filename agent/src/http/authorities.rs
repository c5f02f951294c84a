//! Files with the certificates of authorities that are believed besides the system's.

use std::io;
use std::path::Path;

use rustls::RootCertStore;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;

/// The text (PEM) of the file that `tls.ca_file` names, if it was read and holds certificates that
/// can be used.
///
/// # Errors
/// For a person: the setting, the file and what is wrong.
pub fn authorities(file: &Path, read: io::Result<Vec<u8>>) -> Result<Vec<u8>, String> {
    let place = format!("tls.ca_file: {}", file.display());
    let text = read.map_err(|error| format!("{place} can't be read: {error}"))?;
    let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&text).collect();
    let found =
        found.map_err(|_| format!("{place} holds something else than certificates in PEM form"))?;
    if found.is_empty() {
        return Err(format!(
            "{place} holds no certificate: it must have -----BEGIN CERTIFICATE----- in it"
        ));
    }
    for certificate in found {
        let usable = RootCertStore::empty().add(certificate);
        usable
            .map_err(|error| format!("{place} holds a certificate that can't be used: {error}"))?;
    }
    Ok(text)
}

/// What is wrong where `tls.ca_file` names nobody and the system's authorities can't be had, for
/// which a library has its own words.
pub fn no_authorities(why: &str) -> String {
    format!(
        "whose certificates are to be believed is not known ({why}): install ca-certificates here, \
         or name an authority's certificate by tls.ca_file"
    )
}
