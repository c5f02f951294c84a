//! Addresses that secrets are sent to.

use url::{Host, Url};

use super::ConfigError;
use super::check::value;

/// `https://`, also where no scheme is written; `http://` on this machine only, as secrets are never
/// sent in clear text over a network.
pub(super) fn https(setting: &str, text: &str) -> Result<Url, ConfigError> {
    let url = parse(setting, text)?;
    match url.scheme() {
        "https" => Ok(url),
        "http" if is_loopback(&url) => Ok(url),
        "http" => Err(value(
            setting,
            "http:// would send the token in clear text: use https:// (http:// is for 127.0.0.1 only)",
        )),
        other => Err(value(
            setting,
            format!("has the scheme {other:?}, not https"),
        )),
    }
}

/// An address that no network carries to another machine: loopback, or the link-local one at which a
/// cloud's machine finds its own metadata service.
pub(super) fn of_this_machine(setting: &str, text: &str) -> Result<Url, ConfigError> {
    let url = parse(setting, text)?;
    let link_local = matches!(url.host(), Some(Host::Ipv4(address)) if address.is_link_local());
    if is_loopback(&url) || link_local {
        Ok(url)
    } else {
        Err(value(
            setting,
            "is the address of another machine: a machine's identity is asked for at 169.254.169.254",
        ))
    }
}

fn parse(setting: &str, text: &str) -> Result<Url, ConfigError> {
    // Before anything quotes it.
    if text.contains('@') {
        return Err(value(
            setting,
            "must hold no user and password: a token belongs to `auth`",
        ));
    }
    let with_scheme = if text.contains("://") {
        text.to_owned()
    } else {
        format!("https://{text}")
    };
    let url =
        Url::parse(&with_scheme).map_err(|e| value(setting, format!("{text:?} is no URL: {e}")))?;
    if url.host().is_none() {
        return Err(value(setting, format!("{text:?} names no host")));
    }
    Ok(url)
}

/// Whether a URL leads to this machine by a loopback address.
pub fn is_loopback(url: &Url) -> bool {
    match url.host() {
        Some(Host::Domain(name)) => name == "localhost" || name.ends_with(".localhost"),
        Some(Host::Ipv4(address)) => address.is_loopback(),
        Some(Host::Ipv6(address)) => address.is_loopback(),
        None => false,
    }
}
