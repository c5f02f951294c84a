//! What is wrong between two ends of a TLS connection, for people.

use std::error::Error;

use rustls::{AlertDescription, CertificateError};

/// What TLS has against a connection, if that is why it failed: what is wrong, and what to do.
/// Without the name of the host, which stands before it.
pub fn trouble(error: &(dyn Error + 'static)) -> Option<String> {
    let error = find(error)?;
    let text = match error {
        rustls::Error::InvalidCertificate(wrong) => certificate(wrong),
        rustls::Error::AlertReceived(
            AlertDescription::ProtocolVersion | AlertDescription::HandshakeFailure,
        )
        | rustls::Error::PeerIncompatible(_) => {
            "does not speak TLS 1.2 or later in a way that is still safe: it must be brought up to date"
                .to_owned()
        }
        rustls::Error::InvalidMessage(_) => {
            "answers, but not in TLS: is the port right, and is it https:// there?".to_owned()
        }
        other => format!("TLS failed: {other}"),
    };
    Some(text)
}

fn certificate(wrong: &CertificateError) -> String {
    match wrong {
        CertificateError::Expired | CertificateError::ExpiredContext { .. } => {
            "its certificate has expired: it must be renewed there (or the clock of this machine is \
             wrong)"
                .to_owned()
        }
        CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => {
            "its certificate is not valid yet: is the clock of this machine right?".to_owned()
        }
        CertificateError::NotValidForName => {
            "its certificate is for another name: is the host in the settings right?".to_owned()
        }
        CertificateError::NotValidForNameContext { presented, .. } => {
            let names: Vec<&str> = presented.iter().map(|name| plain(name)).collect();
            format!(
                "its certificate is for another name ({}): is the host in the settings right?",
                names.join(", ")
            )
        }
        CertificateError::UnknownIssuer => {
            "its certificate was issued by an authority that is not known here: if it is your own, \
             name its certificate by `tls.ca_file` of this connection"
                .to_owned()
        }
        CertificateError::BadSignature => {
            "its certificate was not signed by the authority that is known here by that name: if it \
             is your own, it was renewed there but not in `tls.ca_file` of this connection"
                .to_owned()
        }
        CertificateError::Revoked => "its certificate was revoked by its issuer".to_owned(),
        other => format!("its certificate is not in order: {other}"),
    }
}

/// `DnsName("x.example")` is x.example.
fn plain(name: &str) -> &str {
    name.split('"').nth(1).unwrap_or(name)
}

/// An `io::Error` shows the causes of what it holds, but not what it holds itself.
fn find<'a>(error: &'a (dyn Error + 'static)) -> Option<&'a rustls::Error> {
    let mut next = Some(error);
    while let Some(error) = next {
        if let Some(found) = error.downcast_ref::<rustls::Error>() {
            return Some(found);
        }
        let held = error
            .downcast_ref::<std::io::Error>()
            .and_then(std::io::Error::get_ref);
        if let Some(held) = held
            && let Some(found) = find(held)
        {
            return Some(found);
        }
        next = error.source();
    }
    None
}
