//! SHA-256, in lower-case hex: of bytes, and of files that are too large to be held in memory.

use std::io::Read;

use sha2::{Digest, Sha256};

/// Files are read in pieces of this size.
pub const PIECE: usize = 128 * 1024;

/// Of bytes in memory.
pub fn sha256_hex(bytes: &[u8]) -> String {
    hex(&Sha256::digest(bytes))
}

/// A checksum that is being made.
#[derive(Clone, Default)]
pub struct Hasher(Sha256);

impl Hasher {
    pub fn add(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }

    /// Adds all that can be read; how many bytes that was.
    pub fn add_all(&mut self, mut reader: impl Read) -> std::io::Result<u64> {
        let mut piece = vec![0; PIECE];
        let mut all = 0;
        loop {
            match reader.read(&mut piece) {
                Ok(0) => return Ok(all),
                Ok(count) => {
                    self.add(&piece[..count]);
                    all += count as u64;
                }
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
    }

    pub fn finish(self) -> String {
        hex(&self.0.finalize())
    }
}

/// Whether a text is one: 64 lower-case hex digits.
pub fn is_sha256(text: &str) -> bool {
    text.len() == 64 && text.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b))
}

/// The first twelve digits and `…`, for people.
pub fn short(sum: &str) -> String {
    format!("{}…", sum.get(..12).unwrap_or(sum))
}

fn hex(digest: &[u8]) -> String {
    digest.iter().map(|b| format!("{b:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn in_pieces_or_at_once() {
        let bytes: Vec<u8> = (0..=255).cycle().take(3 * PIECE + 7).collect();
        let mut hasher = Hasher::default();
        assert_eq!(hasher.add_all(&bytes[..]).expect("is read"), bytes.len() as u64);
        let sum = hasher.finish();
        assert_eq!(sum, sha256_hex(&bytes));
        assert!(is_sha256(&sum) && !is_sha256(&sum.to_uppercase()) && !is_sha256("abc"));
        assert_eq!(sha256_hex(b""), "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
    }
}
