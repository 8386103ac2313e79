//! Certificates as made, and as judged by the TLS library that clients use.

use std::sync::Arc;

use rcgen::{BasicConstraints, Issuer};
use rustls::RootCertStore;
use rustls::client::WebPkiServerVerifier;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};

use super::describe::{Key, Warning, describe, warnings};
use super::*;

#[test]
fn a_self_signed_certificate_is_its_own_trust_anchor() {
    let names = strings(&["time.example.org", "192.0.2.1", "2001:db8::1"]);
    let pair = self_signed(&names, Duration::days(365), now()).unwrap();
    for name in &names {
        verify(&pair.certificate_pem, name).unwrap();
    }
    verify(&pair.certificate_pem, "other.example.org").unwrap_err();
}

#[test]
fn a_self_signed_certificate_has_no_warnings() {
    let names = strings(&["time.example.org.", "192.0.2.1"]);
    let pair = self_signed(&names, Duration::days(365), now()).unwrap();
    let chain = describe(pair.certificate_pem.as_bytes()).unwrap();
    let [leaf] = chain.as_slice() else { panic!() };
    assert_eq!(leaf.names, ["time.example.org", "192.0.2.1"]);
    assert_eq!(leaf.key, Key::Ecdsa("P-256".to_owned()));
    assert!(!leaf.is_ca && leaf.is_self_issued && !leaf.is_not_for_servers);
    assert_eq!(leaf.not_after - leaf.not_before, Duration::days(366));
    assert_eq!(warnings(&chain, now()), []);
    assert_eq!(warnings(&chain, now() - Duration::days(2)), [Warning::NotYetValid]);
    assert_eq!(warnings(&chain, now() + Duration::days(350)), [Warning::ExpiresSoon(15)]);
    assert_eq!(warnings(&chain, now() + Duration::days(366)), [Warning::Expired]);
}

#[test]
fn two_certificates_share_nothing() {
    let names = strings(&["time.example.org"]);
    let make = || self_signed(&names, Duration::days(1), now()).unwrap();
    let (one, other) = (make(), make());
    assert_ne!(one.certificate_pem, other.certificate_pem);
    assert_ne!(one.key_pem, other.key_pem);
}

#[test]
fn names_that_are_none_are_refused() {
    for name in ["", "https://time.example.org", "time.example.org:4460", "zeit.\u{fc}.de", "a b"] {
        let error = self_signed(&strings(&[name]), Duration::days(1), now()).err().unwrap();
        assert!(matches!(error, MakeError::Name(_)), "{name:?}: {error}");
    }
    let error = self_signed(&[], Duration::days(1), now()).err().unwrap();
    assert!(matches!(error, MakeError::NoName));
    let error = self_signed(&strings(&["a"]), Duration::days(i64::MAX / 86_400), now());
    assert!(matches!(error.err().unwrap(), MakeError::Validity));
}

#[test]
fn files_are_written_whole_or_not_at_all() {
    let folder = tempfile::tempdir().unwrap();
    let (certificate, key) = (folder.path().join("cert.pem"), folder.path().join("key.pem"));
    let pair = self_signed(&strings(&["a"]), Duration::days(1), now()).unwrap();

    fs::write(&certificate, "mine").unwrap();
    let error = pair.write(&certificate, &key, false).unwrap_err();
    assert!(matches!(error, WriteError::Exists(path) if path == certificate));
    assert!(!key.exists());

    pair.write(&certificate, &key, true).unwrap();
    assert_eq!(fs::read_to_string(&certificate).unwrap(), pair.certificate_pem);
    let entries = fs::read_dir(folder.path()).unwrap().count();
    assert_eq!(entries, 2, "a temporary file was left");

    let nowhere = folder.path().join("nowhere/key.pem");
    assert!(matches!(pair.write(&certificate, &nowhere, true), Err(WriteError::Io { .. })));
}

#[test]
fn warnings_of_a_chain_in_the_wrong_order_with_a_bad_leaf() {
    let key = KeyPair::generate_for(&rcgen::PKCS_RSA_SHA256).unwrap();
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.distinguished_name.push(DnType::CommonName, "authority");
    let authority = params.self_signed(&key).unwrap();

    let leaf_key = KeyPair::generate().unwrap();
    let issuer = Issuer::from_params(&params, &key);
    let leaf_params = CertificateParams::new(strings(&["time.example.org"])).unwrap();
    let leaf = leaf_params.signed_by(&leaf_key, &issuer).unwrap();

    let good = describe((leaf.pem() + &authority.pem()).as_bytes()).unwrap();
    assert_eq!(warnings(&good, now()), []);
    let chain = describe((authority.pem() + &leaf.pem()).as_bytes()).unwrap();
    assert_eq!(chain[0].key, Key::Rsa(2048));
    assert_eq!(
        warnings(&chain, now()),
        [Warning::Rsa, Warning::NoName, Warning::CaAsServer, Warning::ChainOrder(1)]
    );
    assert_eq!(describe(leaf.der()).unwrap()[0].names, ["time.example.org"]);
}

fn verify(pem: &str, name: &str) -> Result<(), rustls::Error> {
    let certificate = CertificateDer::from_pem_slice(pem.as_bytes()).unwrap();
    let mut roots = RootCertStore::empty();
    roots.add(certificate.clone()).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let verifier =
        WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider).build().unwrap();
    let name = ServerName::try_from(name.to_owned()).unwrap();
    let seconds = std::time::Duration::from_secs(now().unix_timestamp().unsigned_abs());
    let moment = UnixTime::since_unix_epoch(seconds);
    rustls::client::danger::ServerCertVerifier::verify_server_cert(
        &*verifier,
        &certificate,
        &[],
        &name,
        &[],
        moment,
    )
    .map(|_| ())
}

fn strings(names: &[&str]) -> Vec<String> {
    names.iter().map(|name| (*name).to_owned()).collect()
}

fn now() -> OffsetDateTime {
    OffsetDateTime::from_unix_timestamp(1_800_000_000).unwrap()
}
