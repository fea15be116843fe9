//! Secrets that have to be kept for a while: sealed, so that a row or a backup alone does not give them away.
//!
//! Owns: sealing and opening (ChaCha20-Poly1305).
//! Must not know: what the secrets open.
//! Invariant: what was sealed for one thing opens for no other.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD_NO_PAD;
use ring::aead::{Aad, CHACHA20_POLY1305, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use sha2::{Digest as _, Sha256};

/// Seals with this installation's secret.
#[derive(Clone)]
pub struct Seal([u8; 32]);

impl std::fmt::Debug for Seal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Seal(***)")
    }
}

impl Seal {
    /// From a secret of any length, which other things may be made from too.
    pub fn new(secret: &[u8]) -> Self {
        let hashed = Sha256::new_with_prefix(b"modelpress seal\0").chain_update(secret);
        Self(hashed.finalize().into())
    }

    fn key(&self) -> Option<LessSafeKey> {
        UnboundKey::new(&CHACHA20_POLY1305, &self.0)
            .ok()
            .map(LessSafeKey::new)
    }

    /// The secret as it may be kept with `what` it is for. `nonce` is random and used this once.
    pub fn close(&self, what: &str, secret: &str, nonce: [u8; NONCE_LEN]) -> Option<String> {
        let mut bytes = secret.as_bytes().to_vec();
        let unique = Nonce::assume_unique_for_key(nonce);
        let done = self
            .key()?
            .seal_in_place_append_tag(unique, Aad::from(what), &mut bytes);
        done.ok()?;
        Some(STANDARD_NO_PAD.encode([nonce.as_slice(), &bytes].concat()))
    }

    /// The secret, if it was sealed here and for this.
    pub fn open(&self, what: &str, sealed: &str) -> Option<String> {
        let bytes = STANDARD_NO_PAD.decode(sealed).ok()?;
        let (nonce, closed) = bytes.split_at_checked(NONCE_LEN)?;
        let nonce = Nonce::try_assume_unique_for_key(nonce).ok()?;
        let mut closed = closed.to_vec();
        let open = self
            .key()?
            .open_in_place(nonce, Aad::from(what), &mut closed)
            .ok()?
            .to_vec();
        String::from_utf8(open).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_opens_only_here_and_for_this() {
        let seal = Seal::new(b"secret");
        let kept = seal.close("mdl_1", "hf_token", [7; NONCE_LEN]).expect("seals");
        assert!(!kept.contains("hf_token"));
        assert_eq!(seal.open("mdl_1", &kept).as_deref(), Some("hf_token"));
        assert_eq!(seal.open("mdl_2", &kept), None);
        assert_eq!(Seal::new(b"other").open("mdl_1", &kept), None);
        for wrong in ["", "AAAA", "!", &kept[..kept.len() - 4]] {
            assert_eq!(seal.open("mdl_1", wrong), None, "{wrong}");
        }
        assert_eq!(format!("{seal:?}"), "Seal(***)");
    }
}
