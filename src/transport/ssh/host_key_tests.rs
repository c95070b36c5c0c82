//! known_hosts as a table.

use super::*;

const A: &str = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIP4gOK1NsF2IMNFdY6uNvrKbHDPsqf0hB3gSI5mqDGrd";
const B: &str = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIDsB8Z7K+znPnU6TH/0RX9tkVej7IuVZTyeRAmD38cV0";
const E: &str = "ecdsa-sha2-nistp256 AAAAE2VjZHNhLXNoYTItbmlzdHAyNTYAAAAIbmlzdHAyNTYAAABBBGCsnzJ3ew6BSxrOUZ+71o7Zu+8ubcFSghFzXEoCByzx43OcbLpDgnaWzILvuyepbjdiFlDg1lneoc3z4/qON44=";
/// `ssh-keygen -H` of nas.home.arpa, and of it on port 2222.
const HASHED: &str = "|1|I7Nl/5nrcQ0DlWnuwIakoTqLNlo=|QDX1KGykj9dhwXhhFufkTDjo3/c=";
const HASHED_PORT: &str = "|1|XWKYJjNWmGmuldu4J2gAzn/3Sf0=|wGQ3tjs3HbIfuP235TVH0MZQafQ=";

fn key(text: &str) -> PublicKey {
    PublicKey::from_openssh(text).expect("a key")
}

fn changed(expected: &str) -> Verdict {
    Verdict::Changed(fingerprint(&key(expected)))
}

/// What is said about key A of nas.home.arpa.
#[test]
fn lines_are_read_as_openssh_reads_them() {
    use Verdict::{Known, Revoked, Unknown};
    let table: &[(String, u16, Verdict)] = &[
        (String::new(), 22, Unknown),
        (format!("nas.home.arpa {A}"), 22, Known),
        (format!("NAS.home.arpa {A}"), 22, Known),
        (format!("nas,nas.home.arpa {A} comment with words"), 22, Known),
        (format!("nas.home.arpa\t{}", A.replace(' ', "\t")), 22, Known),
        (format!("  nas.home.arpa   {A}  "), 22, Known),
        (format!("# nas.home.arpa {A}"), 22, Unknown),
        (format!("other.home.arpa {A}"), 22, Unknown),
        (format!("nas.home.arpa.evil {A}"), 22, Unknown),
        (format!("{HASHED} {A}"), 22, Known),
        (format!("{HASHED} {B}"), 22, changed(B)),
        (format!("{HASHED_PORT} {A}"), 22, Unknown),
        (format!("{HASHED_PORT} {A}"), 2222, Known),
        (format!("*.home.arpa {A}"), 22, Known),
        (format!("na?.*.arpa {A}"), 22, Known),
        (format!("na?.home {A}"), 22, Unknown),
        (format!("*.home.arpa,!nas.* {A}"), 22, Unknown),
        (format!("!nas.*,*.home.arpa {A}"), 22, Unknown),
        (format!("!other.*,*.home.arpa {A}"), 22, Known),
        (format!("[nas.home.arpa]:2222 {A}"), 2222, Known),
        (format!("[*.home.arpa]:2222 {A}"), 2222, Known),
        (format!("[nas.home.arpa]:2222 {A}"), 22, Unknown),
        (format!("[nas.home.arpa]:2222 {B}"), 2222, changed(B)),
        (format!("nas.home.arpa {A}"), 2222, Known),
        (format!("nas.home.arpa {B}"), 2222, Unknown),
        (format!("@revoked nas.home.arpa {A}"), 2222, Revoked),
        (format!("nas.home.arpa {B}"), 22, changed(B)),
        (format!("nas.home.arpa {E}"), 22, changed(E)),
        (format!("nas.home.arpa {B}\nnas.home.arpa {A}"), 22, Known),
        (format!("nas.home.arpa {A}\nnas.home.arpa {B}"), 22, Known),
        (format!("nas.home.arpa rubbish\n\0\n{HASHED}\nnas.home.arpa {A}"), 22, Known),
        (format!("@revoked * {A}"), 22, Revoked),
        (format!("@revoked\t*\t{A}"), 22, Revoked),
        (format!("nas.home.arpa {A}\n@revoked nas.home.arpa {A}"), 22, Revoked),
        (format!("@revoked nas.home.arpa {B}"), 22, Unknown),
        (format!("@revoked nas.home.arpa {B}\nnas.home.arpa {A}"), 22, Known),
        (format!("@cert-authority *.home.arpa {A}"), 22, Unknown),
        (format!("@cert-authority *.home.arpa {B}"), 22, Unknown),
        (format!("@unheard-of nas.home.arpa {A}"), 22, Unknown),
    ];
    for (text, port, expected) in table {
        assert_eq!(verdict(text, "nas.home.arpa", *port, &key(A)), *expected, "{text:?} port {port}");
    }
}

#[test]
fn recorded_algorithms_are_asked_for_first() {
    let ours = [Algorithm::Ed25519, key(E).algorithm(), Algorithm::Rsa { hash: Some(HashAlg::Sha512) }];
    let host_key = |text: &str| HostKey {
        host: "nas.home.arpa".into(),
        port: 22,
        policy: Policy::Strict,
        pinned: None,
        files: Vec::new(),
        text: text.into(),
    };
    let first = |text: &str| host_key(text).preferred(&ours)[0].clone();
    assert_eq!(first(""), Algorithm::Ed25519);
    assert_eq!(first(&format!("nas.home.arpa {E}")), key(E).algorithm());
    assert_eq!(host_key(&format!("nas.home.arpa {E}")).preferred(&ours).len(), ours.len());
}

#[test]
fn a_new_key_is_written_once_policy_allows_it() {
    use std::os::unix::fs::PermissionsExt as _;
    let dir = tempfile::tempdir().expect("a folder");
    let file = dir.path().join("new/known_hosts");
    let with = |policy, pinned: Option<&str>| {
        HostKey::new("nas.home.arpa", 2222, policy, pinned, std::slice::from_ref(&file)).expect("readable")
    };
    assert!(matches!(with(Policy::Strict, None).check(&key(A)), Err(Error::HostKeyUnknown { .. })));
    assert!(!file.exists());
    with(Policy::AcceptNew, None).check(&key(A)).expect("accepted");
    assert_eq!(std::fs::read_to_string(&file).expect("written"), format!("[nas.home.arpa]:2222 {A}\n"));
    let mode = |path: &Path| std::fs::metadata(path).expect("there").permissions().mode() & 0o777;
    assert_eq!((mode(&file), mode(&dir.path().join("new"))), (0o600, 0o700));
    with(Policy::Strict, None).check(&key(A)).expect("known now");
    assert!(matches!(with(Policy::AcceptNew, None).check(&key(B)), Err(Error::HostKeyChanged { .. })));
    with(Policy::Strict, Some(B)).check(&key(B)).expect("pinned, known_hosts not asked");
    assert!(matches!(with(Policy::AcceptNew, Some(B)).check(&key(A)), Err(Error::HostKeyChanged { .. })));
}
