//! The cluster's certificate authorities and the certificates they sign, under `<data>/server/tls`.
//!
//! Made once, with K3s's file names; a restored server finds them in the database instead. Kept: the server CA
//! (whose hash tokens carry), the client CA, the admin's client certificate, the serving certificate with its
//! names, a client and a serving certificate a node. Left out: request headers, etcd peers, service accounts.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::path::Path;
use std::sync::Arc;

use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, SanType,
};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};

use super::{Failure, files};

/// The files of the two authorities: what the database keeps for a restore.
pub const AUTHORITY_FILES: [&str; 4] = ["server-ca.crt", "server-ca.key", "client-ca.crt", "client-ca.key"];

/// A certificate and its private key, both PEM.
#[derive(Clone)]
pub struct Pair {
    pub certificate: String,
    pub key: String,
}

/// Who a client certificate speaks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    /// `system:admin`, `system:node:<name>`.
    pub user: String,
    /// `system:masters`, `system:nodes`.
    pub groups: Vec<String>,
}

/// The authorities of a cluster.
#[derive(Clone)]
pub struct Pki {
    pub server_ca: Pair,
    pub client_ca: Pair,
}

impl Pki {
    /// Reads the authorities, or makes them where there are none.
    pub fn open(tls: &Path) -> Result<Self, Failure> {
        files::make_folder(tls, 0o700)?;
        Ok(Self { server_ca: authority(tls, "server-ca")?, client_ca: authority(tls, "client-ca")? })
    }

    /// The authorities' files by name.
    pub fn files(&self) -> BTreeMap<String, String> {
        let texts = [
            &self.server_ca.certificate,
            &self.server_ca.key,
            &self.client_ca.certificate,
            &self.client_ca.key,
        ];
        AUTHORITY_FILES.iter().map(|name| (*name).to_owned()).zip(texts.into_iter().cloned()).collect()
    }

    /// A client certificate.
    pub fn client(&self, user: &str, group: &str) -> Result<Pair, Failure> {
        let mut params = leaf(user);
        params.distinguished_name.push(DnType::OrganizationName, group);
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        sign(&self.client_ca, params)
    }

    /// A serving certificate for names and addresses.
    pub fn serving(&self, user: &str, names: &BTreeSet<String>) -> Result<Pair, Failure> {
        let mut params = leaf(user);
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        for name in names {
            params.subject_alt_names.push(match name.parse::<IpAddr>() {
                Ok(address) => SanType::IpAddress(address),
                Err(_) => SanType::DnsName(name.as_str().try_into().map_err(Failure::certificate)?),
            });
        }
        sign(&self.server_ca, params)
    }
}

/// Writes the authorities' files, as a restore or a join does.
pub fn write_files(tls: &Path, files: &BTreeMap<String, String>) -> Result<(), Failure> {
    files::make_folder(tls, 0o700)?;
    for name in AUTHORITY_FILES {
        if let Some(text) = files.get(name) {
            files::write(&tls.join(name), text, 0o600)?;
        }
    }
    Ok(())
}

/// Whether both authorities are on disk.
pub fn is_there(tls: &Path) -> bool {
    AUTHORITY_FILES.iter().all(|name| tls.join(name).exists())
}

/// Reads a pair from disk, or makes and keeps it. `make` is only called where a file is missing.
pub fn keep(tls: &Path, name: &str, make: impl FnOnce() -> Result<Pair, Failure>) -> Result<Pair, Failure> {
    let (certificate, key) = (tls.join(format!("{name}.crt")), tls.join(format!("{name}.key")));
    if certificate.exists() && key.exists() {
        return Ok(Pair { certificate: files::read(&certificate)?, key: files::read(&key)? });
    }
    let pair = make()?;
    files::write(&certificate, &pair.certificate, 0o600)?;
    files::write(&key, &pair.key, 0o600)?;
    Ok(pair)
}

fn authority(tls: &Path, name: &str) -> Result<Pair, Failure> {
    keep(tls, name, || {
        let key = KeyPair::generate().map_err(Failure::certificate)?;
        let common_name = format!("k3s-{name}@{}", jiff::Timestamp::now().as_second());
        let certificate = authority_params(&common_name).self_signed(&key).map_err(Failure::certificate)?;
        Ok(Pair { certificate: certificate.pem(), key: key.serialize_pem() })
    })
}

fn authority_params(common_name: &str) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name.push(DnType::CommonName, common_name);
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![
        KeyUsagePurpose::DigitalSignature,
        KeyUsagePurpose::KeyEncipherment,
        KeyUsagePurpose::KeyCertSign,
    ];
    params
}

fn leaf(user: &str) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name.push(DnType::CommonName, user);
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature, KeyUsagePurpose::KeyEncipherment];
    params.use_authority_key_identifier_extension = true;
    params
}

/// Signs a leaf; its PEM holds the authority's certificate too, as K3s's files do.
fn sign(authority: &Pair, params: CertificateParams) -> Result<Pair, Failure> {
    let name = identity(&certificates(&authority.certificate)?[0])?.user;
    let key = KeyPair::from_pem(&authority.key).map_err(Failure::certificate)?;
    let issuer = Issuer::new(authority_params(&name), key);
    let own = KeyPair::generate().map_err(Failure::certificate)?;
    let certificate = params.signed_by(&own, &issuer).map_err(Failure::certificate)?;
    Ok(Pair { certificate: certificate.pem() + &authority.certificate, key: own.serialize_pem() })
}

/// The certificates of a PEM text; at least one.
pub fn certificates(pem: &str) -> Result<Vec<CertificateDer<'static>>, Failure> {
    let found: Vec<_> = CertificateDer::pem_slice_iter(pem.as_bytes())
        .collect::<Result<_, _>>()
        .map_err(Failure::certificate)?;
    if found.is_empty() {
        return Err(Failure::certificate("no certificate in the file"));
    }
    Ok(found)
}

/// The private key of a PEM text.
pub fn private_key(pem: &str) -> Result<PrivateKeyDer<'static>, Failure> {
    PrivateKeyDer::from_pem_slice(pem.as_bytes()).map_err(Failure::certificate)
}

/// The trust store of one authority.
pub fn roots(pem: &str) -> Result<Arc<rustls::RootCertStore>, Failure> {
    let mut store = rustls::RootCertStore::empty();
    for certificate in certificates(pem)? {
        store.add(certificate).map_err(Failure::certificate)?;
    }
    Ok(Arc::new(store))
}

/// The common name and the organizations of a certificate.
pub fn identity(certificate: &CertificateDer<'_>) -> Result<Identity, Failure> {
    use x509_cert::der::Decode as _;
    use x509_cert::der::asn1::{PrintableStringRef, Utf8StringRef};

    const COMMON_NAME: &str = "2.5.4.3";
    const ORGANIZATION: &str = "2.5.4.10";
    let parsed = x509_cert::Certificate::from_der(certificate).map_err(Failure::certificate)?;
    let mut identity = Identity { user: String::new(), groups: Vec::new() };
    for attribute in parsed.tbs_certificate().subject().iter() {
        let value = attribute
            .value
            .decode_as::<Utf8StringRef<'_>>()
            .map(|text| text.to_string())
            .or_else(|_| attribute.value.decode_as::<PrintableStringRef<'_>>().map(|text| text.to_string()))
            .map_err(Failure::certificate)?;
        match attribute.oid.to_string().as_str() {
            COMMON_NAME => identity.user = value,
            ORGANIZATION => identity.groups.push(value),
            _ => {}
        }
    }
    Ok(identity)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn authorities_stay_and_sign() {
        let folder = tempfile::tempdir().expect("a folder");
        let pki = Pki::open(folder.path()).expect("made");
        let again = Pki::open(folder.path()).expect("read");
        assert_eq!(pki.server_ca.certificate, again.server_ca.certificate);
        assert_ne!(pki.server_ca.certificate, pki.client_ca.certificate);
        let admin = again.client("system:admin", "system:masters").expect("signed");
        let chain = certificates(&admin.certificate).expect("two certificates");
        assert_eq!(chain.len(), 2);
        assert_eq!(
            identity(&chain[0]).expect("readable"),
            Identity { user: "system:admin".into(), groups: vec!["system:masters".into()] }
        );
    }
}
