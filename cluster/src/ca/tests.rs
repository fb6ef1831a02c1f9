//! Certificates, requests and the folder they are kept in.

use std::os::unix::fs::PermissionsExt as _;
use std::time::Duration;

use agent_api::swarm::NodeRole;
use cluster_api::{IdSource, Timestamp};
use proptest::prelude::*;
use rcgen::{CertificateParams, CustomExtension, DnType, KeyPair, SanType};
use x509_parser::prelude::{FromDer as _, GeneralName, X509Certificate};

use super::*;

const HOUR: i64 = 3600 * 1_000_000_000;
const NOW: Timestamp = Timestamp(1_700_000_000 * 1_000_000_000);

fn subject(node_id: &str, role: NodeRole) -> NodeSubject {
    NodeSubject {
        node_id: node_id.to_owned(),
        role,
        cluster_id: "c1".to_owned(),
    }
}

fn issue(root: &RootCa, request: &[u8], subject: &NodeSubject) -> NodeCertificate {
    let request = CertificateRequest::from_der(request).unwrap();
    root.issue(&request, subject, DEFAULT_VALIDITY, NOW)
        .unwrap()
}

fn identity(root: &RootCa, node_id: &str) -> Identity {
    let key = NodeKey::generate().unwrap();
    let certificate = issue(
        root,
        &key.request().unwrap(),
        &subject(node_id, NodeRole::Manager),
    );
    Identity {
        root: root.trust().clone(),
        certificate,
        key,
        raft_key: RaftKey::generate().unwrap(),
    }
}

fn names(certificate: &X509Certificate<'_>) -> Vec<String> {
    let names = certificate.subject_alternative_name().unwrap().unwrap();
    let text = |name: &GeneralName<'_>| match name {
        GeneralName::DNSName(name) => (*name).to_owned(),
        other => panic!("unexpected name {other:?}"),
    };
    names.value.general_names.iter().map(text).collect()
}

#[test]
fn a_certificate_says_who_may_do_what_in_which_cluster_and_for_how_long() {
    let root = RootCa::create(NOW).unwrap();
    let key = NodeKey::generate().unwrap();
    let made = issue(
        &root,
        &key.request().unwrap(),
        &subject("n1", NodeRole::Worker),
    );
    assert_eq!(made.subject, subject("n1", NodeRole::Worker));
    assert_eq!(made.not_before.0, NOW.0 - HOUR);
    assert_eq!(made.not_after.0, NOW.0 + 90 * 24 * HOUR);
    assert_eq!(
        NodeCertificate::from_pem(made.pem().as_bytes()).unwrap(),
        made
    );

    let (_, parsed) = X509Certificate::from_der(&made.der).unwrap();
    assert_eq!(parsed.subject().to_string(), "O=c1, OU=swarm-worker, CN=n1");
    assert_eq!(parsed.issuer().to_string(), "CN=swarm-ca");
    assert_eq!(names(&parsed), ["n1", "swarm-worker"]);
    assert!(!parsed.is_ca());
    let usage = parsed.extended_key_usage().unwrap().unwrap().value;
    assert!(usage.client_auth && usage.server_auth && !usage.any);

    let (_, root) = X509Certificate::from_der(root.trust().der()).unwrap();
    let years = root.validity().not_after.timestamp() - NOW.0 / 1_000_000_000;
    assert_eq!(years, 20 * 365 * 24 * 3600);
    assert!(root.is_ca());
}

#[test]
fn of_a_request_only_the_key_is_used() {
    let root = RootCa::create(NOW).unwrap();
    let key = KeyPair::generate().unwrap();
    let mut params = CertificateParams::default();
    params.distinguished_name.push(DnType::CommonName, "n2");
    params
        .distinguished_name
        .push(DnType::OrganizationalUnitName, "swarm-manager");
    params
        .distinguished_name
        .push(DnType::OrganizationName, "another");
    params.subject_alt_names = vec![
        SanType::DnsName("swarm-manager".try_into().unwrap()),
        SanType::IpAddress([10, 0, 0, 1].into()),
    ];
    // Basic constraints: an authority.
    let mut authority =
        CustomExtension::from_oid_content(&[2, 5, 29, 19], vec![0x30, 3, 1, 1, 0xff]);
    authority.set_criticality(true);
    params.custom_extensions = vec![authority];
    let request = params.serialize_request(&key).unwrap();

    let made = issue(&root, request.der(), &subject("n1", NodeRole::Worker));
    let (_, parsed) = X509Certificate::from_der(&made.der).unwrap();
    assert_eq!(parsed.subject().to_string(), "O=c1, OU=swarm-worker, CN=n1");
    assert_eq!(names(&parsed), ["n1", "swarm-worker"]);
    assert!(!parsed.is_ca());
    assert_eq!(
        parsed.public_key().subject_public_key.data.as_ref(),
        key.public_key_raw()
    );
}

#[test]
fn requests_that_are_not_what_a_node_sends_are_refused() {
    let good = NodeKey::generate().unwrap().request().unwrap();
    let refused = |der: &[u8]| match CertificateRequest::from_der(der) {
        Err(CaError::Request(reason)) => reason,
        other => panic!("{other:?}"),
    };

    let other_key = KeyPair::generate_for(&rcgen::PKCS_ED25519).unwrap();
    let other = CertificateParams::default()
        .serialize_request(&other_key)
        .unwrap();
    assert_eq!(refused(other.der()), "its key is not an ECDSA P-256 key");

    // The key of one, the signature of another.
    let second = NodeKey::generate().unwrap();
    let (theirs, ours) = (second.request().unwrap(), &good);
    let key_at = |der: &[u8]| {
        let (_, request) =
            x509_parser::certification_request::X509CertificationRequest::from_der(der).unwrap();
        let key = request.certification_request_info.subject_pki.raw;
        key.as_ptr() as usize - der.as_ptr() as usize
            ..key.as_ptr() as usize - der.as_ptr() as usize + key.len()
    };
    let mut stolen = ours.clone();
    stolen[key_at(ours)].copy_from_slice(&theirs[key_at(&theirs)]);
    assert_eq!(refused(&stolen), "it is not signed with the key it carries");

    let mut longer = good.clone();
    longer.push(0);
    assert_eq!(refused(&longer), "bytes follow it");
    longer.resize(MAX_REQUEST_BYTES + 1, 0);
    assert_eq!(
        refused(&longer),
        "it has 4097 bytes, at most 4096 are allowed"
    );
    for cut in 0..good.len() {
        refused(&good[..cut]);
    }
}

#[test]
fn asking_twice_with_one_key_is_one_node() {
    let key = NodeKey::generate().unwrap();
    let id = |key: &NodeKey| {
        CertificateRequest::from_der(&key.request().unwrap())
            .unwrap()
            .node_id()
    };
    assert_eq!(id(&key), id(&key));
    assert_ne!(id(&key), id(&NodeKey::generate().unwrap()));
    assert_eq!(id(&key).len(), 25);
}

#[test]
fn certificates_for_strange_subjects_or_lives_are_not_made() {
    let root = RootCa::create(NOW).unwrap();
    let request = NodeKey::generate().unwrap().request().unwrap();
    let request = CertificateRequest::from_der(&request).unwrap();
    let issue = |id: &str, validity| {
        root.issue(&request, &subject(id, NodeRole::Worker), validity, NOW)
            .unwrap_err()
            .to_string()
    };
    for id in ["", "a/b", "N1", "swarm-manager", &"a".repeat(65)] {
        assert!(issue(id, DEFAULT_VALIDITY).contains("cannot stand in a certificate"));
    }
    assert_eq!(
        issue("n1", Duration::from_secs(3599)),
        "certificates of 3599s are too short-lived: at least 1h is needed"
    );
}

#[test]
fn a_root_survives_its_text_and_fits_only_its_own_key() {
    let (root, other) = (RootCa::create(NOW).unwrap(), RootCa::create(NOW).unwrap());
    let again = RootCa::from_pem(&root.trust().pem(), &root.key_pem()).unwrap();
    assert_eq!(again.trust(), root.trust());
    let error = RootCa::from_pem(&root.trust().pem(), &other.key_pem()).unwrap_err();
    assert_eq!(
        error.to_string(),
        "root key cannot be read: it does not belong to the root certificate"
    );

    let error = root.trust().check(other.trust().digest(), "10.0.0.1:2377");
    assert!(error.unwrap_err().to_string().starts_with(
        "the root certificate of 10.0.0.1:2377 is not the one the token names (hash sha256:"
    ));
    root.trust().check(root.trust().digest(), "").unwrap();

    let node = identity(&root, "n1").certificate.pem();
    let error = TrustRoot::from_pem(node.as_bytes()).unwrap_err();
    assert!(error.to_string().ends_with("it is not one of an authority"));
    let two = root.trust().pem() + &other.trust().pem();
    assert!(TrustRoot::from_pem(two.as_bytes()).is_err());
    assert!(TrustRoot::from_pem(b"").is_err());
}

#[test]
fn an_identity_survives_the_disk_and_nobody_else_reads_it() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("swarm/certificates");
    let store = IdentityStore::new(path.clone());
    assert!(store.load().unwrap().is_none());

    let root = RootCa::create(NOW).unwrap();
    let identity = identity(&root, "n1");
    store.save(&identity).unwrap();
    let mode = |path: &std::path::Path| path.metadata().unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(&path.join("swarm-node.pem")), 0o600);
    assert_eq!(mode(&path), 0o700);

    let loaded = store.load().unwrap().unwrap();
    assert_eq!(loaded.root, identity.root);
    assert_eq!(loaded.certificate, identity.certificate);
    assert_eq!(loaded.raft_key, identity.raft_key);

    store.clear().unwrap();
    assert!(store.load().unwrap().is_none());
    assert_eq!(path.read_dir().unwrap().count(), 0);
}

#[test]
fn a_pending_key_is_the_same_until_there_is_a_certificate() {
    let folder = tempfile::tempdir().unwrap();
    let store = IdentityStore::new(folder.path().to_owned());
    let root = RootCa::create(NOW).unwrap();
    let raw = |key: &NodeKey| key.pem().to_string();
    let first = store.pending_key().unwrap();
    assert_eq!(raw(&store.pending_key().unwrap()), raw(&first));
    // A crash while the file was replaced leaves the new one beside.
    std::fs::write(folder.path().join(".swarm-node.pem.new"), "half a fi").unwrap();

    let certificate = issue(
        &root,
        &first.request().unwrap(),
        &subject("n1", NodeRole::Worker),
    );
    let kept = raw(&first);
    let identity = Identity {
        root: root.trust().clone(),
        certificate,
        key: first,
        raft_key: RaftKey::generate().unwrap(),
    };
    store.save(&identity).unwrap();
    assert_eq!(raw(&store.load().unwrap().unwrap().key), kept);
    assert_ne!(raw(&store.pending_key().unwrap()), kept);
    assert!(!folder.path().join(".swarm-node.pem.new").exists());
}

#[test]
fn identities_whose_parts_do_not_fit_are_refused() {
    let (root, other) = (RootCa::create(NOW).unwrap(), RootCa::create(NOW).unwrap());
    let reason = |identity: Identity| identity.check().unwrap_err().to_string();

    let mut wrong_key = identity(&root, "n1");
    wrong_key.key = NodeKey::generate().unwrap();
    assert_eq!(
        reason(wrong_key),
        "certificate of node n1 does not fit: its key is another one"
    );
    let mut wrong_root = identity(&root, "n1");
    wrong_root.root = other.trust().clone();
    assert_eq!(
        reason(wrong_root),
        "certificate of node n1 does not fit: the root did not sign it"
    );
    let (own, others) = (identity(&root, "n1"), identity(&root, "n2"));
    let error = own.renewed(others.certificate, others.key).unwrap_err();
    assert_eq!(
        error.to_string(),
        "certificate of node n1 does not fit: it was made for node n2 of c1"
    );

    let folder = tempfile::tempdir().unwrap();
    let store = IdentityStore::new(folder.path().to_owned());
    store.save(&own).unwrap();
    std::fs::write(folder.path().join("swarm-root-ca.crt"), other.trust().pem()).unwrap();
    let error = store.load().unwrap_err().to_string();
    assert!(
        error.ends_with(
            "swarm-node.pem: certificate of node n1 does not fit: the root did not sign it"
        ),
        "{error}"
    );
    std::fs::remove_file(folder.path().join("swarm-root-ca.crt")).unwrap();
    let error = store.load().unwrap_err().to_string();
    assert!(
        error.contains("swarm-root-ca.crt is missing although"),
        "{error}"
    );
}

#[test]
fn no_key_is_printed() {
    let root = RootCa::create(NOW).unwrap();
    let identity = identity(&root, "n1");
    let printed = format!("{identity:?} {root:?} {:?}", identity.key);
    let secret = identity.key.pem();
    let line = secret.lines().nth(1).unwrap();
    assert!(!printed.contains(line));
    assert!(printed.contains("RaftKey(…)"));
}

proptest! {
    #[test]
    fn renewal_is_between_half_and_four_fifths_of_a_life(seed: u64, age in 0..200_i64) {
        let root = RootCa::create(NOW).unwrap();
        let certificate = identity(&root, "n1").certificate;
        let life = certificate.not_after.0 - certificate.not_before.0;
        let now = Timestamp(certificate.not_before.0 + life / 100 * age);
        let wait = renew_at(&certificate, now, &mut IdSource::seeded(seed));
        let at = now.0 + i64::try_from(wait.as_nanos()).unwrap() - certificate.not_before.0;
        if age >= 80 {
            prop_assert_eq!(wait, Duration::ZERO);
        } else if age < 50 {
            prop_assert!(at >= life / 2 && at <= life / 10 * 8);
        } else {
            prop_assert!(at <= life / 10 * 8);
        }
    }

    #[test]
    fn any_bytes_are_refused_without_a_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
        prop_assert!(CertificateRequest::from_der(&bytes).is_err());
        prop_assert!(NodeCertificate::from_pem(&bytes).is_err());
        prop_assert!(NodeCertificate::from_der(&bytes.clone().into()).is_err());
        prop_assert!(TrustRoot::from_pem(&bytes).is_err());
    }

    #[test]
    fn a_request_with_a_changed_byte_is_refused_or_has_its_key(at in 0_usize..200, bit in 0_u8..8) {
        let key = NodeKey::generate().unwrap();
        let mut der = key.request().unwrap();
        let at = at % der.len();
        der[at] ^= 1 << bit;
        // The signature covers the key: what is accepted has the key it was made with.
        if let Ok(request) = CertificateRequest::from_der(&der) {
            let made = rcgen::PublicKeyData::der_bytes(&request.key).to_vec();
            let certificate = issue(&RootCa::create(NOW).unwrap(), &key.request().unwrap(), &subject("n1", NodeRole::Worker));
            prop_assert!(certificate.public_key.ends_with(&made));
        }
    }
}
