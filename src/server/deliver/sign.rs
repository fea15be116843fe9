//! Signatures, as Standard Webhooks has them.
//!
//! Owns: what is signed and how the signature is written.
//! Must not know: where secrets come from, who is sent to.
//! Invariant: the signature is over the bytes that are sent.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hmac::{Hmac, KeyInit as _, Mac as _};
use sha2::Sha256;

use crate::domain::webhook::Secret;

/// The value of `webhook-signature`: one signature a secret, so that the receiver may know either of two.
pub fn signatures(secrets: &[Secret], id: &str, timestamp: i64, body: &str) -> String {
    let signed = format!("{id}.{timestamp}.{body}");
    let one = |secret: &Secret| {
        // HMAC takes keys of any length.
        let mut mac = Hmac::<Sha256>::new_from_slice(secret.bytes()).ok()?;
        mac.update(signed.as_bytes());
        Some(format!("v1,{}", STANDARD.encode(mac.finalize().into_bytes())))
    };
    let all: Vec<String> = secrets.iter().filter_map(one).collect();
    all.join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The vector that the libraries of Standard Webhooks test themselves with.
    #[test]
    fn the_published_vector() {
        let secret: Secret = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
            .parse()
            .expect("a secret");
        let id = "msg_p5jXN8AQM9LWM0D4loKWxJek";
        let body = r#"{"test": 2432232314}"#;
        let expected = "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=";
        assert_eq!(
            signatures(std::slice::from_ref(&secret), id, 1_614_265_330, body),
            expected
        );
        let both = signatures(&[Secret::of([1; 32]), secret], id, 1_614_265_330, body);
        assert!(
            both.ends_with(&format!(" {expected}")) && both.matches("v1,").count() == 2,
            "{both}"
        );
    }
}
