//! HTTP clients: which certificates they believe, and what mends one that is not believed.

use std::error::Error;
use std::io;
use std::time::Duration;

use reqwest::{Certificate, Client, ClientBuilder};
use rustls::CertificateError;

use crate::fault;

/// Builds a client that believes the system's authorities and these `own` ones; `set_up` sets its limits.
///
/// On a machine without any authority it believes no certificate: whoever is not asked by TLS is asked
/// all the same, and nothing else waits for a package to be installed.
pub fn build(
    own: Vec<Certificate>,
    set_up: impl Fn(ClientBuilder) -> ClientBuilder,
) -> reqwest::Result<Client> {
    if !own.is_empty() {
        return set_up(begin()).tls_certs_merge(own).build();
    }
    set_up(begin()).build().or_else(|error| {
        tracing::error!(
            error = fault::told(&error),
            "this machine has no certificate authorities, so no certificate is believed; \
             install the package `ca-certificates` and restart pryamo"
        );
        set_up(begin()).tls_certs_only([]).build()
    })
}

/// Builds a client for `pryamo`'s own commands: straight to the daemon, past any proxy, without TLS.
pub fn local(patience: Duration) -> reqwest::Result<Client> {
    let client = begin().no_proxy().timeout(patience);
    client.tls_certs_only([]).build()
}

fn begin() -> ClientBuilder {
    // Only the first call of the process installs it; later ones find it there.
    let _ = rustls::crypto::ring::default_provider().install_default();
    #[expect(clippy::disallowed_methods, reason = "every client begins here")]
    Client::builder()
}

/// What the administrator does about a certificate that was not believed, where that is among the
/// causes of `error`.
pub fn mends_certificate(error: &(dyn Error + 'static)) -> Option<&'static str> {
    let mut causes = std::iter::successors(Some(error), |error| cause_of(*error));
    causes.find_map(|cause| match cause.downcast_ref::<rustls::Error>() {
        Some(rustls::Error::InvalidCertificate(fault)) => Some(mends(fault)),
        _ => None,
    })
}

/// An I/O error names as its source the source of what it was made of, and passes that over.
fn cause_of<'a>(error: &'a (dyn Error + 'static)) -> Option<&'a (dyn Error + 'static)> {
    match error.downcast_ref::<io::Error>() {
        Some(error) => error.get_ref().map(|inner| inner as &(dyn Error + 'static)),
        None => error.source(),
    }
}

fn mends(fault: &CertificateError) -> &'static str {
    match fault {
        // A bad signature is one of another authority of the same name: it was made anew.
        CertificateError::UnknownIssuer | CertificateError::BadSignature => {
            "this machine knows no authority that has signed its certificate: name the PEM file of your own authority in `ca_file`, as it is now, or install the package `ca-certificates`; then restart pryamo"
        }
        CertificateError::Expired
        | CertificateError::ExpiredContext { .. }
        | CertificateError::NotValidYet
        | CertificateError::NotValidYetContext { .. } => {
            "see whether this machine's clock is right; if it is, the certificate has to be renewed"
        }
        CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. } => {
            "the certificate is of another host: correct the address, or have one made for this host"
        }
        _ => {
            "have its certificate made anew, by an authority whose PEM file stands in `ca_file` or that everybody knows; one that is its own authority is not believed"
        }
    }
}
