//! Join tokens.
//!
//! The secure form is `K10<sha256 of the cluster CA, hex>::<user>:<password>`, the short form is the password alone
//! or `<user>:<password>` after `K10…::`; a bootstrap token is `<6 characters>.<16 characters>`.
//! Rules and words follow K3s's `pkg/clientaccess/token.go`.

use sha2::{Digest as _, Sha256};

const PREFIX: &str = "K10";
const HASH_LENGTH: usize = 64;

/// Who a token says its bearer is.
#[derive(Clone, PartialEq, Eq)]
pub enum Credentials {
    /// HTTP basic authentication; the user is `server`, `node` or empty (short form).
    Password { user: String, password: String },
    /// A bootstrap token: HTTP bearer authentication.
    Bootstrap(String),
}

/// A parsed token.
#[derive(Clone, PartialEq, Eq)]
pub struct Token {
    /// The CA hash of the secure form.
    pub ca_hash: Option<String>,
    pub credentials: Credentials,
}

/// Why a token cannot be used. Holds no part of its secret.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TokenError {
    #[error("token must not be empty")]
    Empty,
    #[error("invalid token CA hash length")]
    HashLength,
    #[error("invalid token format")]
    Format,
    #[error("token CA hash does not match the Cluster CA certificate hash: {wanted} != {found}")]
    WrongCa { wanted: String, found: String },
}

impl Token {
    /// Reads a token in any form.
    pub fn parse(text: &str) -> Result<Self, TokenError> {
        let text = text.trim();
        if text.is_empty() {
            return Err(TokenError::Empty);
        }
        let Some(rest) = text.strip_prefix(PREFIX) else {
            let credentials = match is_bootstrap(text) {
                true => Credentials::Bootstrap(text.to_owned()),
                false => Credentials::Password { user: String::new(), password: text.to_owned() },
            };
            return Ok(Self { ca_hash: None, credentials });
        };
        let (hash, credentials) = rest.split_once("::").unwrap_or(("", rest));
        if !hash.is_empty() && hash.len() != HASH_LENGTH {
            return Err(TokenError::HashLength);
        }
        let ca_hash = (!hash.is_empty()).then(|| hash.to_owned());
        if is_bootstrap(credentials) {
            return Ok(Self { ca_hash, credentials: Credentials::Bootstrap(credentials.to_owned()) });
        }
        match credentials.split_once(':') {
            Some((user, password)) if !password.is_empty() => Ok(Self {
                ca_hash,
                credentials: Credentials::Password { user: user.to_owned(), password: password.to_owned() },
            }),
            _ => Err(TokenError::Format),
        }
    }

    /// Refuses a cluster whose CA (the PEM text of `/cacerts`) is not the token's. A short token accepts any.
    pub fn check_ca(&self, ca_pem: &str) -> Result<(), TokenError> {
        let found = ca_hash(ca_pem);
        match &self.ca_hash {
            Some(wanted) if *wanted != found => Err(TokenError::WrongCa { wanted: wanted.clone(), found }),
            _ => Ok(()),
        }
    }

    /// The password, where the token has one.
    pub fn password(&self) -> Option<&str> {
        match &self.credentials {
            Credentials::Password { password, .. } => Some(password),
            Credentials::Bootstrap(_) => None,
        }
    }
}

/// The hash in a secure token: of the CA file's bytes, as K3s does for a single self-signed CA.
pub fn ca_hash(ca_pem: &str) -> String {
    hex(&Sha256::digest(ca_pem.as_bytes()))
}

/// The secure form.
pub fn secure(ca_pem: &str, credentials: &str) -> String {
    format!("{PREFIX}{}::{credentials}", ca_hash(ca_pem))
}

/// Whether a text is `[a-z0-9]{6}.[a-z0-9]{16}`.
pub fn is_bootstrap(text: &str) -> bool {
    let part = |text: &str, length: usize| {
        text.len() == length && text.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit())
    };
    text.split_once('.').is_some_and(|(id, secret)| part(id, 6) && part(secret, 16))
}

/// Lower-case hexadecimal.
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// As many random bytes as asked for, in hexadecimal.
pub fn random_hex(bytes: usize) -> String {
    let mut buffer = vec![0; bytes];
    // The system's generator; it does not fail on a running Linux.
    rustls::crypto::ring::default_provider().secure_random.fill(&mut buffer).unwrap_or_default();
    hex(&buffer)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn password(user: &str, password: &str) -> Credentials {
        Credentials::Password { user: user.into(), password: password.into() }
    }

    #[test]
    fn forms() {
        let hash = "a".repeat(64);
        type Parsed = Result<(Option<&'static str>, Credentials), TokenError>;
        let cases: &[(&str, Parsed)] = &[
            ("secret", Ok((None, password("", "secret")))),
            ("secret\n", Ok((None, password("", "secret")))),
            ("a:b", Ok((None, password("", "a:b")))),
            ("K10::server:secret", Ok((None, password("server", "secret")))),
            ("K10server:secret", Ok((None, password("server", "secret")))),
            ("abcdef.0123456789abcdef", Ok((None, Credentials::Bootstrap("abcdef.0123456789abcdef".into())))),
            ("", Err(TokenError::Empty)),
            ("K10abc::server:x", Err(TokenError::HashLength)),
            ("K10::server:", Err(TokenError::Format)),
            ("K10::server", Err(TokenError::Format)),
        ];
        for (text, wanted) in cases {
            let seen = Token::parse(text).map(|token| (token.ca_hash.clone(), token.credentials.clone()));
            let wanted = wanted.clone().map(|(hash, credentials)| (hash.map(str::to_owned), credentials));
            assert!(seen == wanted, "{text:?}");
        }
        let secure = Token::parse(&format!("K10{hash}::node:x")).expect("well formed");
        assert!(secure.ca_hash.as_deref() == Some(&hash) && secure.credentials == password("node", "x"));
    }

    #[test]
    fn a_secure_token_names_one_ca() {
        let token = Token::parse(&secure("one CA", "server:x")).expect("well formed");
        assert_eq!(token.check_ca("one CA"), Ok(()));
        let error = token.check_ca("another CA").expect_err("another cluster");
        assert!(
            error.to_string().starts_with("token CA hash does not match the Cluster CA certificate hash")
        );
        assert_eq!(Token::parse("x").expect("short").check_ca("any"), Ok(()));
    }
}
