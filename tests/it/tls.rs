//! A CRM behind TLS, as every real one is: whose certificate is believed, and what is said of any other.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair, date_time_ymd};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use rustls::{ServerConfig, SupportedProtocolVersion};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::AbortHandle;
use tokio_rustls::TlsAcceptor;

use crate::daemon::{Daemon, Site, wait_for};
use crate::fake_amocrm::{self, FakeAmocrm};
use crate::fake_bitrix24::{self, FakeBitrix24};
use crate::world::{World, call_of};

const CONTACTS: u64 = 120;
/// Whom the certificates here are for.
const HERE: &str = "127.0.0.1";
const OURS: &str = "The company's own";

/// Signs certificates.
pub struct Authority {
    issuer: Issuer<'static, KeyPair>,
    certificate: rcgen::Certificate,
}

/// What a server shows and proves.
pub struct Identity {
    certificate: CertificateDer<'static>,
    key: PrivateKeyDer<'static>,
}

impl Authority {
    pub fn new(name: &str) -> Self {
        let mut of = CertificateParams::default();
        of.distinguished_name.push(DnType::CommonName, name);
        let (certificate, key) = sign_itself(&mut of);
        Self {
            issuer: Issuer::new(of, key),
            certificate,
        }
    }

    /// Gives a server of this name a certificate; `change` says what is odd about it.
    pub fn sign(&self, host: &str, change: impl FnOnce(&mut CertificateParams)) -> Identity {
        let key = KeyPair::generate().unwrap();
        let mut of = CertificateParams::new([host.to_owned()]).unwrap();
        change(&mut of);
        let signed = of.signed_by(&key, &self.issuer).unwrap();
        Identity::new(&signed, &key)
    }

    /// Its certificate as a PEM file of the site's.
    fn file_in(&self, site: &Site) -> PathBuf {
        let path = site.path("ca.pem");
        std::fs::write(&path, self.certificate.pem()).unwrap();
        path
    }
}

impl Identity {
    fn new(certificate: &rcgen::Certificate, key: &KeyPair) -> Self {
        Self {
            certificate: certificate.der().clone(),
            key: PrivatePkcs8KeyDer::from(key.serialize_der()).into(),
        }
    }
}

fn sign_itself(of: &mut CertificateParams) -> (rcgen::Certificate, KeyPair) {
    let key = KeyPair::generate().unwrap();
    of.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    (of.self_signed(&key).unwrap(), key)
}

/// The server that is its own authority, as `openssl req -x509` makes one.
fn its_own_authority(host: &str) -> Identity {
    let mut of = CertificateParams::new([host.to_owned()]).unwrap();
    let (certificate, key) = sign_itself(&mut of);
    Identity::new(&certificate, &key)
}

/// Takes TLS off and hands on what it finds; ends with its value.
pub struct Door {
    server: SocketAddr,
    address: SocketAddr,
    shows: Arc<Mutex<TlsAcceptor>>,
    /// Connections that came through.
    passed: Arc<AtomicUsize>,
    accepting: AbortHandle,
}

impl Door {
    /// Shows this identity before `server`, in any version of TLS that is still in use.
    pub async fn before(server: SocketAddr, identity: Identity) -> Self {
        Self::speaking(rustls::ALL_VERSIONS, server, identity).await
    }

    async fn speaking(
        versions: &[&'static SupportedProtocolVersion],
        server: SocketAddr,
        identity: Identity,
    ) -> Self {
        let shows = Arc::new(Mutex::new(acceptor(versions, identity)));
        let current = Arc::clone(&shows);
        let listener = TcpListener::bind((HERE, 0)).await.unwrap();
        let address = listener.local_addr().unwrap();
        let passed = Arc::new(AtomicUsize::new(0));
        let counted = Arc::clone(&passed);
        let accepting = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let acceptor = current.lock().unwrap().clone();
                let counted = Arc::clone(&counted);
                tokio::spawn(async move {
                    // Who does not believe us leaves here.
                    let Ok(mut inside) = acceptor.accept(stream).await else {
                        return;
                    };
                    counted.fetch_add(1, Ordering::Relaxed);
                    let mut behind = TcpStream::connect(server).await.unwrap();
                    // Either side may leave without a word.
                    let _ = tokio::io::copy_bidirectional(&mut inside, &mut behind).await;
                });
            }
        });
        Self {
            server,
            address,
            shows,
            passed,
            accepting: accepting.abort_handle(),
        }
    }

    /// Shows another identity from now on.
    fn show(&self, identity: Identity) {
        *self.shows.lock().unwrap() = acceptor(rustls::ALL_VERSIONS, identity);
    }

    fn passed(&self) -> usize {
        self.passed.load(Ordering::Relaxed)
    }

    /// A text whose addresses lead to the server itself, led through this door.
    pub fn through(&self, text: &str) -> String {
        let (server, door) = (self.server, self.address);
        text.replace(&format!("http://{server}"), &format!("https://{door}"))
    }
}

impl Drop for Door {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

fn acceptor(versions: &[&'static SupportedProtocolVersion], identity: Identity) -> TlsAcceptor {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(versions)
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![identity.certificate], identity.key)
        .unwrap();
    TlsAcceptor::from(Arc::new(config))
}

async fn bitrix24() -> FakeBitrix24 {
    let world = World::office(CONTACTS).shared();
    FakeBitrix24::start(world, fake_bitrix24::Options::default()).await
}

/// A Bitrix24 at this address; `more` is what else stands in its table.
fn of_bitrix24(url: &str, more: &str) -> String {
    format!(
        "[match]\nlive_lookup_ms = 0\n[sync]\nchanges_every_seconds = 1\n[[crm]]\nname = \"sales\"\n\
         kind = \"bitrix24\"\nurl = \"{url}\"\n{more}"
    )
}

fn wait_until_mirrored(daemon: &Daemon) {
    wait_for("the mirror", || {
        (daemon.rings(&call_of(CONTACTS)) == Some("101".to_owned())).then_some(())
    });
}

#[tokio::test(flavor = "multi_thread")]
async fn an_own_authority_is_believed_where_ca_file_or_the_system_names_it() {
    let authority = Authority::new(OURS);
    for versions in [[&rustls::version::TLS12], [&rustls::version::TLS13]] {
        let fake = bitrix24().await;
        let identity = authority.sign(HERE, |_| {});
        let door = Door::speaking(&versions, fake.server(), identity).await;
        let url = door.through(&fake.url());

        let by_file = Site::new(&of_bitrix24(&url, "ca_file = \"ca.pem\"\n"));
        authority.file_in(&by_file);
        wait_until_mirrored(&Daemon::start_in(&by_file, &[]));
        let checked = by_file.run(&["check"]);
        assert!(!checked.out.contains("FAULT crm"), "{}", checked.out);

        // As the system's own: this is where it is looked for.
        let by_system = Site::new(&of_bitrix24(&url, ""));
        let file = authority.file_in(&by_system).display().to_string();
        wait_until_mirrored(&Daemon::start_in(&by_system, &[("SSL_CERT_FILE", file)]));
        assert!(door.passed() > 0);
    }

    let amocrm = FakeAmocrm::start(
        World::office(CONTACTS).shared(),
        fake_amocrm::Options::default(),
    );
    let door = Door::before(amocrm.address(), authority.sign(HERE, |_| {})).await;
    let table = door.through(&amocrm.table());
    let site = Site::new(&format!(
        "[match]\nlive_lookup_ms = 0\n[[crm]]\nname = \"sales\"\nkind = \"amocrm\"\nca_file = \"ca.pem\"\n{table}\
         [crm.employees]\n1 = {{ extension = \"101\" }}\n2 = {{ extension = \"102\" }}\n"
    ));
    authority.file_in(&site);
    wait_until_mirrored(&Daemon::start_in(&site, &[]));
}

/// Nothing of a request, and so no secret, goes to whoever cannot prove who they are.
#[tokio::test(flavor = "multi_thread")]
async fn no_other_certificate_is_believed_and_what_mends_it_is_said() {
    let ours = Authority::new(OURS);
    let long_ago = |of: &mut CertificateParams| {
        of.not_before = date_time_ymd(2019, 1, 1);
        of.not_after = date_time_ymd(2020, 1, 1);
    };
    let issuer = "this machine knows no authority that has signed its certificate";
    let cases = [
        (
            Authority::new("Another").sign(HERE, |_| {}),
            "UnknownIssuer",
            issuer,
        ),
        // Ours was made anew, and the file is of the former one.
        (
            Authority::new(OURS).sign(HERE, |_| {}),
            "BadSignature",
            issuer,
        ),
        (ours.sign(HERE, long_ago), "expired", "this machine's clock"),
        (
            ours.sign("portal.example.com", |_| {}),
            "portal.example.com",
            "of another host",
        ),
        (
            its_own_authority(HERE),
            "CaUsedAsEndEntity",
            "made anew, by an authority",
        ),
    ];
    for (identity, why, mend) in cases {
        let fake = bitrix24().await;
        let door = Door::before(fake.server(), identity).await;
        let url = door.through(&fake.url());
        let site = Site::new(&of_bitrix24(&url, "ca_file = \"ca.pem\"\n"));
        ours.file_in(&site);
        let checked = site.run(&["check"]);
        assert_eq!(checked.code, 3, "{why}: {checked:?}");
        let lines: Vec<&str> = checked.out.lines().collect();
        let place = lines.iter().position(|line| line.starts_with("FAULT crm"));
        let place = place.unwrap_or_else(|| panic!("{why}: {}", checked.out));
        assert!(lines[place].contains(why), "{why}: {}", checked.out);
        assert!(lines[place + 1].contains(mend), "{why}: {}", checked.out);
        assert_eq!((door.passed(), fake.requests().len()), (0, 0), "{why}");
    }

    let amocrm = FakeAmocrm::start(World::office(3).shared(), fake_amocrm::Options::default());
    let strange = Authority::new("Another").sign(HERE, |_| {});
    let door = Door::before(amocrm.address(), strange).await;
    let table = door.through(&amocrm.table());
    let site = Site::new(&format!(
        "[[crm]]\nname = \"sales\"\nkind = \"amocrm\"\n{table}"
    ));
    let checked = site.run(&["check"]);
    assert!(checked.out.contains("UnknownIssuer"), "{}", checked.out);
    assert!(
        checked.out.contains("-> this machine knows no authority"),
        "{}",
        checked.out
    );
    assert_eq!((door.passed(), amocrm.requests()), (0, 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_certificate_that_goes_bad_stops_no_call() {
    let (authority, fake) = (Authority::new(OURS), bitrix24().await);
    let door = Door::before(fake.server(), authority.sign(HERE, |_| {})).await;
    let url = door.through(&fake.url());
    let site = Site::new(&of_bitrix24(&url, "ca_file = \"ca.pem\"\n"));
    authority.file_in(&site);
    let daemon = Daemon::start_in(&site, &[]);
    wait_until_mirrored(&daemon);
    drop(daemon);
    door.show(Authority::new("Another").sign(HERE, |_| {}));
    let passed = door.passed();
    let daemon = Daemon::start_in(&site, &[]);
    assert_eq!(daemon.rings(&call_of(CONTACTS)), Some("101".to_owned()));
    wait_for("the fault to be counted", || {
        (daemon.metric("pryamo_crm_errors_total", "certificate") > 0).then_some(())
    });
    daemon.logged("UnknownIssuer");
    assert_eq!(door.passed(), passed);
}

/// A machine without the package `ca-certificates`, or whose upgrade took it away.
#[tokio::test(flavor = "multi_thread")]
async fn a_machine_without_authorities_answers_all_the_same() {
    let found_at = |path: &str| ["SSL_CERT_FILE", "SSL_CERT_DIR"].map(|key| (key, path.to_owned()));
    let nowhere = found_at("/nonexistent");
    let (authority, fake) = (Authority::new(OURS), bitrix24().await);
    let door = Door::before(fake.server(), authority.sign(HERE, |_| {})).await;
    let url = door.through(&fake.url());
    let site = Site::new(&of_bitrix24(&url, ""));
    let file = authority.file_in(&site);
    wait_until_mirrored(&Daemon::start_in(&site, &found_at(file.to_str().unwrap())));
    let passed = door.passed();

    let daemon = Daemon::start_in(&site, &nowhere);
    assert_eq!(daemon.rings(&call_of(CONTACTS)), Some("101".to_owned()));
    daemon.logged("install the package `ca-certificates`");
    let employees = site.run_in(&["employees"], &nowhere);
    assert_eq!(employees.code, 0, "{employees:?}");
    let checked = site.run_in(&["check"], &nowhere);
    let mend = "or install the package `ca-certificates`";
    assert!(checked.out.contains(mend), "{}", checked.out);
    assert_eq!(door.passed(), passed);
    drop(daemon);

    // An authority of one's own is enough, and so is a CRM that is not asked by TLS.
    site.configure(&of_bitrix24(&url, "ca_file = \"ca.pem\"\n"));
    let daemon = Daemon::start_in(&site, &nowhere);
    wait_for("a request", || (door.passed() > passed).then_some(()));
    drop(daemon);
    let plain = Site::new(&of_bitrix24(&fake.url(), ""));
    wait_until_mirrored(&Daemon::start_in(&plain, &nowhere));
}

#[test]
fn a_ca_file_without_an_authority_is_refused() {
    let site = Site::new(&of_bitrix24(
        "https://127.0.0.1/rest/1/made-up/",
        "ca_file = \"ca.pem\"\n",
    ));
    for (text, why) in [
        (None, "No such file"),
        (
            Some("no certificate\n"),
            "no PEM file of an authority: it holds no certificate",
        ),
    ] {
        if let Some(text) = text {
            std::fs::write(site.path("ca.pem"), text).unwrap();
        }
        let served = site.run(&["serve"]);
        assert_eq!(served.code, 2, "{served:?}");
        let checked = site.run(&["check"]);
        assert_eq!(checked.code, 3, "{checked:?}");
        for told in [&served.err, &checked.out] {
            assert!(told.contains("ca.pem") && told.contains(why), "{told}");
        }
    }
}
